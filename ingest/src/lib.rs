//! Bytes to batches: exposition text, OpenMetrics, remote write, push bodies; relabelling and the scrape loop
