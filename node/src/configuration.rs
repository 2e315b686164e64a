//! The configuration in force.
//!
//! Promise: a new one takes the old one's place as a whole, after everything in it was checked and
//! compiled, or not at all.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use model::Timestamp;
use model::port::Clock;

use crate::config::{self, Config, ConfigError, Surroundings};
use crate::scrape::{Features, Job, jobs};

/// Why there is no new configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Rules(String),
}

/// A file, and what was last read from it.
pub struct Configuration {
    file: PathBuf,
    /// Whether the file must be there.
    is_required: bool,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    clock: Arc<dyn Clock>,
    features: Features,
    state: RwLock<State>,
}

/// What is in force.
#[derive(Debug, Clone)]
pub struct State {
    pub config: Arc<Config>,
    /// When it was loaded.
    pub since: Timestamp,
    /// Whether the newest attempt succeeded, and when it was made.
    pub last_succeeded: bool,
    pub last_attempt: Timestamp,
}

/// A configuration that can be put in force.
pub struct Loaded {
    pub config: Arc<Config>,
    pub jobs: Vec<Job>,
}

impl Configuration {
    /// Nothing is read yet: an empty configuration is in force.
    pub fn new(
        file: PathBuf,
        is_required: bool,
        surroundings: Arc<dyn Surroundings + Send + Sync>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State {
            config: Arc::default(),
            since: Timestamp(0),
            last_succeeded: false,
            last_attempt: Timestamp(0),
        };
        Self {
            file,
            is_required,
            surroundings,
            clock,
            features: Features::default(),
            state: RwLock::new(state),
        }
    }

    /// The same with features switched on. With native histograms protobuf is asked for first where
    /// the file does not say otherwise.
    pub fn with_features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    pub fn state(&self) -> State {
        let state = self.state.read();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads and checks the file; what is in force stays so.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let mut config = match self.is_required {
            true => config::load(&self.file, &*self.surroundings)?,
            false => config::load_default(&self.file, &*self.surroundings)?.unwrap_or_default(),
        };
        if self.features.native_histograms {
            config.prefer_protobuf();
        }
        let jobs = jobs(&config, self.features).map_err(LoadError::Rules)?;
        Ok(Loaded {
            config: Arc::new(config),
            jobs,
        })
    }

    /// Notes that `config` is in force now, or that an attempt failed.
    pub fn note(&self, config: Option<Arc<Config>>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.last_succeeded = config.is_some();
        state.last_attempt = self.clock.now();
        if let Some(config) = config {
            state.config = config;
            state.since = self.clock.now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// One file whose text may change; `None` when it is missing.
    struct OneFile(Mutex<Option<&'static str>>);

    impl Surroundings for OneFile {
        fn read(&self, _file: &Path) -> io::Result<String> {
            let text = *self.0.lock().unwrap();
            text.map(str::to_owned)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(7)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn configuration(text: Option<&'static str>, is_required: bool) -> Configuration {
        let file = Arc::new(OneFile(Mutex::new(text)));
        Configuration::new("p.yml".into(), is_required, file, Arc::new(Stopped))
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_named() {
        assert!(configuration(None, false).load().is_ok());
        let error = configuration(None, true).load().err();
        assert!(matches!(
            error,
            Some(LoadError::Config(ConfigError::Missing { .. }))
        ));
    }

    #[test]
    fn a_bad_file_leaves_the_old_configuration_in_force() {
        let good = configuration(Some("global: {scrape_interval: 7s}\n"), true);
        good.note(Some(good.load().unwrap().config));
        assert_eq!(good.state().since, Timestamp(7));
        good.note(None);
        let state = good.state();
        assert!(!state.last_succeeded);
        assert_eq!(state.config.global.scrape_interval.as_secs(), 7);
        assert!(configuration(Some("globul: {}\n"), true).load().is_err());
    }
}
