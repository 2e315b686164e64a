//! Who may reach the HTTP listeners: the file of `--web.config.file`, as Prometheus' and
//! Pushgateway's exporter-toolkit reads it, and what it asks for.
//!
//! Promise: a file with a mistake is never put in force, whole or in part: at start the node does
//! not start, later the settings before stay. The file and the ones it names are looked at again
//! at most once a second, when somebody connects or asks. No password is printed or written.
//!
//! In reading order: [`file`] is the file's text as settings, [`users`] checks passwords,
//! [`pushes`] binds users and rates to jobs, [`tls`] encrypts connections, [`guard`] stands in
//! front of the routers.

pub mod file;
pub mod guard;
pub mod pushes;
pub mod tls;
pub mod users;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use model::port::Clock;
use tokio_rustls::rustls::ServerConfig;
use tracing::{error, info};

use crate::config::{ConfigError, Surroundings};
use file::WebFile;
use pushes::Rates;
use users::Passwords;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why settings were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("{0}")]
    Tls(String),
    /// Clients would speak to the listener as before, and nobody would understand them.
    #[error("{}: TLS cannot be switched on or off while the node runs", .0.display())]
    TlsSwitched(PathBuf),
}

/// What is in force, and the files it came from.
pub struct Access {
    file: PathBuf,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    clock: Arc<dyn Clock>,
    in_force: RwLock<Arc<Settings>>,
    /// When the files were last looked at, and what was wrong with them then.
    looked: Mutex<(Duration, Option<AccessError>)>,
    passwords: Passwords,
    rates: Rates,
    /// Who shows this may read `/-/ready` without a password: Consul's check.
    check_token: String,
}

/// The settings of one reading of the files.
pub struct Settings {
    pub web: WebFile,
    /// `None`: connections are plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// Of every file that was read; when it changes, the settings do.
    fingerprint: Vec<String>,
}

impl Access {
    /// Reads the file; nothing may be wrong with it.
    pub fn open(
        file: &Path,
        surroundings: Arc<dyn Surroundings + Send + Sync>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AccessError> {
        let settings = Settings::read(file, &*surroundings)?;
        Ok(Self {
            file: file.to_owned(),
            surroundings,
            in_force: RwLock::new(Arc::new(settings)),
            looked: Mutex::new((clock.monotonic(), None)),
            clock,
            passwords: Passwords::default(),
            rates: Rates::default(),
            check_token: tls::random_text(),
        })
    }

    /// The settings of this moment.
    pub fn in_force(&self) -> Arc<Settings> {
        self.look_again();
        let in_force = self.in_force.read();
        Arc::clone(&in_force.unwrap_or_else(PoisonError::into_inner))
    }

    /// A header that lets Consul's check through.
    pub fn check_header(&self) -> (&'static str, &str) {
        (guard::CHECK_HEADER, &self.check_token)
    }

    pub fn has_tls(&self) -> bool {
        let in_force = self.in_force.read();
        in_force
            .unwrap_or_else(PoisonError::into_inner)
            .tls
            .is_some()
    }

    fn look_again(&self) {
        // Whoever finds another one looking uses what is in force.
        let Ok(mut looked) = self.looked.try_lock() else {
            return;
        };
        let now = self.clock.monotonic();
        if now.saturating_sub(looked.0) < LOOK_INTERVAL {
            return;
        }
        let wrong = self.replace().err();
        if let Some(error) = wrong
            .as_ref()
            .filter(|error| looked.1.as_ref() != Some(error))
        {
            let file = self.file.display();
            error!(%file, err = %error, "web configuration not loaded, the one before stays");
        }
        *looked = (now, wrong);
    }

    fn replace(&self) -> Result<(), AccessError> {
        let read = Settings::read(&self.file, &*self.surroundings)?;
        let mut in_force = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if in_force.fingerprint == read.fingerprint {
            return Ok(());
        }
        if in_force.tls.is_some() != read.tls.is_some() {
            return Err(AccessError::TlsSwitched(self.file.clone()));
        }
        *in_force = Arc::new(read);
        info!(file = %self.file.display(), "web configuration loaded");
        Ok(())
    }
}

impl Settings {
    fn read(file: &Path, surroundings: &dyn Surroundings) -> Result<Self, AccessError> {
        let (web, text) = file::load(file, surroundings)?;
        let mut fingerprint = vec![text];
        let tls = match &web.tls {
            Some(tls) => {
                let (config, texts) =
                    tls::server_config(tls, web.http2, surroundings).map_err(AccessError::Tls)?;
                fingerprint.extend(texts);
                Some(Arc::new(config))
            }
            None => None,
        };
        Ok(Self {
            web,
            tls,
            fingerprint,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use model::Timestamp;

    use super::*;

    #[derive(Default)]
    struct Ticks(AtomicU64);

    impl Clock for Ticks {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_changed_file_is_taken_and_a_wrong_one_is_not() {
        let text = Arc::new(Mutex::new("http_server_config: {http2: false}".to_owned()));
        let shown = Arc::clone(&text);
        let surroundings = move |_: &Path| Ok(shown.lock().unwrap().clone());
        let clock = Arc::new(Ticks::default());
        let access = Access::open(Path::new("web.yml"), Arc::new(surroundings), clock.clone());
        let access = access.unwrap();
        let http2 = |after: u64| {
            clock.0.fetch_add(after, Ordering::Relaxed);
            access.in_force().web.http2
        };
        assert!(!http2(0));
        "http_server_config: {http2: true}".clone_into(&mut text.lock().unwrap());
        assert!(!http2(0), "looked at too often");
        assert!(http2(1));
        "http_server_config: {http2: false, foo: 1}".clone_into(&mut text.lock().unwrap());
        assert!(http2(1));
        "http_server_config: {http2: false}".clone_into(&mut text.lock().unwrap());
        assert!(!http2(1));
    }
}
