//! Every bound of the system, by name. A queue, batch, cache or retry without one here is a bug.

/// A write request's body as sent, and as decoded; checked before allocating.
pub const WRITE_BODY_BYTES_MAX: usize = 32 << 20;
pub const WRITE_DECODED_BYTES_MAX: usize = 32 << 20;
/// Label sets of remote write that a node knows by their encoded bytes.
pub const SEEN_LABELS_BYTES_MAX: usize = 128 << 20;
/// Label sets that two nodes have numbered on one stream of writes.
pub const WRITE_DICTIONARY_BYTES_MAX: usize = 128 << 20;
/// What histograms and exemplars of one write request or scrape may take in memory: a few bytes on
/// the wire become a hundred times as many.
pub const WRITE_MEMORY_BYTES_MAX: usize = 256 << 20;
/// Texts of one remote write 2.0 request that its series refer to: an empty one takes two bytes on
/// the wire and sixteen here.
pub const WRITE_SYMBOLS_MAX: usize = 4 << 20;
/// Texts about what was left out of one request; the others are counted.
pub const WRITE_PROBLEMS_MAX: usize = 100;
/// An OTLP request in JSON, which takes some twenty times as much in memory while it is read.
pub const OTLP_JSON_BYTES_MAX: usize = 8 << 20;
/// A resource or a scope of an OTLP request, a data point, and attributes of one of them.
pub const OTLP_PART_BYTES_MAX: usize = 1 << 20;
pub const OTLP_ATTRIBUTES_MAX: usize = 256;
/// Exemplars of one data point.
pub const OTLP_EXEMPLARS_MAX: usize = 128;
/// `target_info` samples that one resource of a request gives, at half the lookback between them:
/// more than a day.
pub const OTLP_TARGET_SAMPLES_MAX: usize = 1000;
/// One native histogram as sent; one of 160 buckets takes about 1 KiB.
pub const HISTOGRAM_SENT_BYTES_MAX: usize = 64 << 10;
/// Characters of all names and values of an exemplar's labels (OpenMetrics 1.0).
pub const EXEMPLAR_CHARS_MAX: usize = 128;
/// A pushed or scraped exposition, decoded.
pub const EXPOSITION_BYTES_MAX: usize = 64 << 20;
/// The same as series: in protobuf a hundred buckets share one text of their labels.
pub const EXPOSITION_LABEL_BYTES_MAX: usize = 256 << 20;
/// One metric of a protobuf exposition.
pub const METRIC_BYTES_MAX: usize = 1 << 20;
/// What a target's metadata may take: its types, helps and units.
pub const METADATA_BYTES_MAX: usize = 16 << 20;
/// Name, help and unit of one family in a write request; longer ones are not kept.
pub const METADATA_ENTRY_BYTES_MAX: usize = 8 << 10;
/// What one write request says of its families; the rest of it is not kept.
pub const METADATA_REQUEST_BYTES_MAX: usize = 8 << 20;
/// What a shard keeps of families: so many words about them, of so many bytes, and about one family.
/// Those told longest ago leave first.
pub const METADATA_KEPT_MAX: usize = 32_768;
pub const METADATA_KEPT_BYTES_MAX: usize = 8 << 20;
pub const METADATA_VARIANTS_MAX: usize = 4;
/// Running totals of series that come as differences, in one shard; new series beyond are refused.
pub const TOTALS_MAX: u32 = 262_144;
/// Words about families that a node knows to be stored, by their hash.
pub const METADATA_TOLD_MAX: usize = 262_144;
/// Queries in one request to `/federate`.
pub const FEDERATE_QUERIES_MAX: usize = 64;
/// Series of a page of newest samples.
pub const NEWEST_PAGE_SERIES: usize = 1024;
/// A family of a protobuf exposition, before the rest of its metrics goes into another message.
pub const FAMILY_BYTES_MAX: usize = 8 << 20;
/// An exposition leaves in pieces of about this size.
pub const EXPOSITION_PIECE_BYTES: usize = 64 << 10;
/// A remote read request, as sent and as decoded, and the queries in it.
pub const READ_REQUEST_BYTES_MAX: usize = 1 << 20;
pub const READ_QUERIES_MAX: usize = 64;
/// A frame of a remote read's answer (Prometheus' `--storage.remote.read-max-bytes-in-frame`).
pub const READ_FRAME_BYTES: usize = 1 << 20;
/// Samples of one query of a remote read that is answered in one piece
/// (`--storage.remote.read-sample-limit`).
pub const READ_SAMPLES_MAX: usize = 50_000_000;
/// A form in a request's body (Go's `ParseForm`).
pub const FORM_BYTES_MAX: usize = 10 << 20;
/// Connections of one HTTP listener, and the headers of one request.
pub const HTTP_CONNECTIONS_MAX: usize = 512;
pub const HTTP_HEADER_BYTES_MAX: usize = 32 << 10;
/// Bodies of requests held in memory, all together.
pub const HTTP_BODIES_BYTES_MAX: usize = 1 << 30;
/// Bodies that are unpacked and decoded on a thread of their own at one time, and how large one is
/// that is not: about 50 ms of the worst there is.
pub const HTTP_LONG_DECODES_MAX: usize = 2;
pub const HTTP_SHORT_DECODE_BYTES_MAX: usize = 1 << 20;
/// Requests that one HTTP/2 connection may have open.
pub const HTTP_STREAMS_MAX: u32 = 64;
/// Queries evaluated at one time (Prometheus' `--query.max-concurrency`).
pub const QUERIES_MAX: usize = 20;
/// Labels of one series, and bytes of one name or value.
pub const LABELS_MAX: usize = 256;
pub const LABEL_BYTES_MAX: usize = 64 << 10;

/// One Raft proposal: what is merged before it is cut.
pub const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Label sets of new series that stand compressed in one command, before they are; more stand as they are.
pub const COMMAND_LABELS_PACKED_BYTES_MAX: usize = 4 << 20;
/// Writes waiting for a shard leader's proposer, in bytes; beyond it the answer is "try later".
pub const PROPOSER_QUEUE_BYTES_MAX: usize = 32 << 20;
/// One AppendEntries message (openraft counts entries, not bytes, so the log reader cuts).
pub const APPEND_BYTES_MAX: usize = 2 << 20;
/// One gRPC message between nodes.
pub const RPC_BYTES_MAX: usize = 64 << 20;
/// Questions of reads that are answered at once for one peer.
pub const READS_MAX: usize = 1024;
/// A question of one node's pages to another's and its answer, and how many are answered at once.
pub const ASK_BYTES_MAX: usize = 16 << 20;
pub const ASKS_MAX: usize = 32;
/// An answer of a Consul agent; a node takes about 2 KiB of one.
pub const CONSUL_BODY_BYTES_MAX: usize = 4 << 20;

/// One log segment, and one batch of the log's writer.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;
pub const LOG_BATCH_BYTES_MAX: usize = 8 << 20;
/// Appends waiting for the log's writer.
pub const LOG_QUEUE_MAX: usize = 4096;
pub const LOG_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Rows of the log that wait for their series while a replica opens, of one shard: 16 MiB of values. Each series
/// that is written every time gets this many divided by the series at once.
pub const REPLAY_ROWS_MAX: usize = 1 << 21;
/// Pieces those rows may be in, of 32 bytes: nearly always a tenth of it.
pub const REPLAY_PIECES_MAX: usize = 1 << 18;
/// Recent log entries kept in memory, all groups together: what followers have not been sent yet is younger. At
/// a million samples a second it is more than a second's.
pub const LOG_CACHE_BYTES_MAX: usize = 8 << 20;

/// Of a block's file, read before it is asked for.
pub const READ_AHEAD_BYTES: usize = 256 << 10;
/// Files kept open so that block reads do not reopen them.
pub const READ_HANDLES_MAX: usize = 512;
/// Connections the system holds for a listener before they are accepted.
pub const LISTEN_BACKLOG: u32 = 1024;

/// A regular expression: its text, how deep it nests (Go: 1000; whoever walks it may recurse), and
/// what it is compiled to. `.{1000}` takes a third of a megabyte.
pub const REGEX_PATTERN_BYTES_MAX: usize = 1 << 20;
pub const REGEX_DEPTH_MAX: usize = 250;
pub const REGEX_BYTES_MAX: usize = 4 << 20;
/// A PromQL text, how deep it may nest, and how high its tree may be: a chain of operators nests
/// once and is as high as it is long.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
pub const QUERY_DEPTH_MAX: usize = 128;
pub const QUERY_HEIGHT_MAX: usize = 512;
/// The stack of a thread that runs tasks: whoever walks a query's tree recurses on it, and takes
/// some 4 KiB for a level where nothing is optimised.
pub const TASK_STACK_BYTES: usize = 16 << 20;
/// Parsed queries that are kept to be asked again, and how long each may be.
pub const PARSED_QUERIES_MAX: usize = 32;
pub const PARSED_QUERY_BYTES_MAX: usize = 1 << 10;
/// Steps of a range query (Prometheus: 11,000 points per series).
pub const QUERY_POINTS_MAX: i64 = 11_000;
/// Samples one query may hold at once (Prometheus' `--query.max-samples`).
pub const QUERY_SAMPLES_MAX: usize = 50_000_000;
/// Bytes of samples one query may hold at once: what it selected and what it computed.
pub const QUERY_BYTES_HELD_MAX: usize = 1 << 30;
/// Bytes that one call of `label_replace` or `label_join` may write to the labels of all series.
pub const QUERY_LABELS_BYTES_MAX: usize = 128 << 20;
/// Series and samples that all queries of a node together may have selected and hold.
pub const QUERIES_BYTES_MAX: usize = 2 << 30;
/// Bytes of a query's text in the file of running queries, and when that file is written anew.
pub const ACTIVE_QUERY_BYTES_MAX: usize = 1000;
pub const ACTIVE_LOG_BYTES_MAX: usize = 256 << 10;
/// Lines waiting to be written to the log of all queries; what comes on top is lost and counted.
pub const QUERY_LOG_LINES_MAX: usize = 1024;
/// Counts of samples that a part of a query tells with its columns, by step and instant. Of subqueries
/// of more instants the asking node knows what was held at most, but not when.
pub const PART_COUNTS_MAX: usize = 256 << 10;
/// Selections of one query under way at once: how many, how many before anything is known of them, and of how
/// many bytes or samples one is so large that no other one begins beside it.
pub const QUERY_SELECTIONS_MAX: usize = 8;
pub const QUERY_SELECTIONS_FIRST: usize = 4;
pub const QUERY_SELECTION_LARGE_BYTES: usize = 8 << 20;
pub const QUERY_SELECTION_LARGE_SAMPLES: u64 = 1_000_000;
/// A configuration file: its bytes, how deep it nests, and its values once aliases are resolved.
pub const CONFIG_BYTES_MAX: usize = 16 << 20;
pub const CONFIG_DEPTH_MAX: usize = 64;
pub const CONFIG_NODES_MAX: usize = 2_000_000;

/// One native histogram in its canonical bytes: some 100,000 buckets.
pub const HISTOGRAM_BYTES_MAX: usize = 1 << 20;

/// Spans of its log of which a shard remembers how far back they reached.
pub const TOUCHED_SPANS_MAX: usize = 4096;
/// How far a child cluster was read, as its parent keeps it, and children that a cluster reads.
pub const CURSOR_BYTES_MAX: usize = 3 << 10;
pub const CURSORS_MAX: usize = 1024;
/// A frame of a federation stream: the largest that is written holds one histogram too many.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Rows that a parent writes at once of what a child sends.
pub const FEDERATED_ROWS_MAX: usize = 20_000;
/// Samples behind the last cut that a shard's head gathers before they become a block.
pub const LATE_SAMPLES_MAX: u64 = 1_000_000;
/// Blocks made at once of what came late, and of what did not.
pub const SEALS_MAX: u64 = 64;
/// Ids of series that a shard ever gives: a hundred thousand new series an hour for seventy years.
pub const SERIES_IDS_MAX: u64 = 1 << 36;
/// Series collected by one command, and series looked at for them under one hold of the lock.
pub const COLLECT_SERIES_MAX: usize = 4096;
pub const COLLECT_LOOKS_MAX: usize = 4096;
/// Label values of all shards' heads, held to count them.
pub const STATISTICS_BYTES_MAX: usize = 256 << 20;

/// Names of damaged files that a shard remembers until they are looked after.
pub const SUSPECTS_MAX: usize = 1024;
/// Files that one compaction reads.
pub const COMPACTION_BYTES_MAX: u64 = 16 << 30;

/// Columns of one sealed block that stay in memory once a question wanted few of many.
pub const BLOCK_COLUMNS_KEPT_BYTES: usize = 1 << 20;

/// Tables of sealed blocks, which say where samples stand, pages of their indexes, and labels of their series, that stay
/// in memory on a node once they were read.
pub const BLOCK_TABLES_KEPT_BYTES: usize = 32 << 20;

/// The directory of one sealed block, decompressed: what a lying length can make us hold.
pub const BLOCK_DIRECTORY_BYTES_MAX: u64 = 1 << 30;

/// Lines of the line protocols: how many bytes are made into one batch, how long one line of text
/// and one line of JSON (a series with its samples) may be, and how many bad ones are told of.
pub const LINES_BLOCK_BYTES: usize = 1 << 20;
pub const LINE_BYTES_MAX: usize = 1 << 20;
pub const JSON_LINE_BYTES_MAX: usize = 16 << 20;
pub const LINE_PROBLEMS_MAX: usize = 16;
/// Rows of one write of lines: a line of JSON may hold a series of a million samples.
pub const LINES_ROWS_MAX: usize = 20_000;
/// Samples of one line of an export.
pub const EXPORT_LINE_ROWS: usize = 10_000;
/// What decoding lines takes in memory for each byte of them, at most about.
pub const LINES_MEMORY_FACTOR: usize = 8;
/// Lines that wait to be stored, of one receiver of TCP and UDP; what a piece of them takes beside
/// its bytes, and how many connections it reads.
pub const LINES_QUEUE_BYTES_MAX: usize = 32 << 20;
pub const LINES_PIECE_BYTES: usize = 256;
pub const LINES_CONNECTIONS_MAX: usize = 1024;
/// One line of Graphite or StatsD, and one message of pickled points (carbon's own limit).
pub const METRIC_LINE_BYTES_MAX: usize = 64 << 10;
pub const PICKLE_BYTES_MAX: usize = 1 << 20;

/// Pushes that wait at the leader of one shard until they are answered: how many, and their bytes.
pub const PUSHES_WAITING_MAX: usize = 4096;
pub const PUSH_QUEUE_BYTES_MAX: usize = 64 << 20;

/// Samples and families of one push: on the wire they take a few bytes, here a hundred times as many.
pub const PUSH_SAMPLES_MAX: usize = 1_000_000;

/// The name of one additive push, and those a shard remembers to know a repetition: how many, and
/// their bytes.
pub const PUSH_ID_BYTES_MAX: usize = 128;
pub const PUSH_IDS_MAX: usize = 32_768;
pub const PUSH_IDS_BYTES_MAX: usize = 2 << 20;
/// How long a group may be said to live: ten years.
pub const PUSH_TTL_MS_MAX: u64 = 3_653 * 86_400_000;

/// Series that one node takes by StatsD while its process lives, and observations it keeps of one
/// for the quantiles of one interval.
pub const STATSD_SERIES_MAX: usize = 50_000;
pub const STATSD_OBSERVATIONS_MAX: usize = 4096;
