//! What a monitor can ask of a volume: every metric once, with its unit and meaning, and the text
//! form in which Prometheus reads them.
//!
//! Guarantees: the list in [`METRICS`] is what is served, documented (`docs/OPERATIONS.md`) and
//! drawn (`docs/grafana.json`); tests compare them. All samples carry the label `volume`, so that
//! several volumes can be collected as one. Does not: measure; `volume` and `stats` do.

pub mod server;

use std::fmt::Write as _;

use crate::volume::{ClassReport, ShardInfo, StatsReport, Status};

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only rises, until the volume is mounted again.
    Counter,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// What is known of a volume at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its state.
    pub status: &'a Status,
    /// Its numbers.
    pub stats: &'a StatsReport,
}

/// The value of the metric's label, and the value.
type Samples = Vec<(String, f64)>;

/// One metric.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts.
    pub unit: &'static str,
    /// Its label besides `volume`; none if empty.
    pub label: &'static str,
    /// What it says.
    pub meaning: &'static str,
    read: fn(&Facts<'_>) -> Samples,
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    read: fn(&Facts<'_>) -> Samples,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, label: "", meaning, read }
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    read: fn(&Facts<'_>) -> Samples,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, label: "", meaning, read }
}

impl Metric {
    const fn by(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    gauge("stratafs_info", "1", "always 1; the version that serves the volume", |_| {
        vec![(env!("CARGO_PKG_VERSION").to_owned(), 1.0)]
    })
    .by("version"),
    gauge("stratafs_mounted", "bool", "1 if it is mounted", |f| {
        flag(f.status.mounted_on.is_some())
    }),
    gauge("stratafs_read_only", "bool", "1 if no change is accepted", |f| flag(f.status.read_only)),
    gauge("stratafs_stopped", "bool", "1 if a failure stopped writing until the next mount", |f| {
        flag(f.status.poisoned.is_some())
    }),
    gauge(
        "stratafs_commit_failing",
        "bool",
        "1 if the last commit failed and is tried again",
        |f| flag(f.status.commit_failure.is_some()),
    ),
    gauge(
        "stratafs_last_commit_timestamp_seconds",
        "seconds since 1970",
        "when the last commit was durable; 0 if none was since it was opened",
        |f| one(f.status.last_commit_secs),
    ),
    gauge("stratafs_txg", "commits", "number of the last durable commit", |f| one(f.status.txg)),
    gauge("stratafs_dirty_bytes", "bytes", "written and not yet cut", |f| {
        one(f.status.dirty_bytes)
    }),
    gauge("stratafs_open_txg_bytes", "bytes", "metadata that is not committed", |f| {
        one(f.status.open_txg_bytes)
    }),
    gauge("stratafs_snapshots", "snapshots", "snapshots there are", |f| one(f.status.snapshots)),
    gauge("stratafs_live_bytes", "bytes", "raw bytes of the live tree's files", |f| {
        one(f.stats.live_bytes)
    }),
    gauge("stratafs_unique_bytes", "bytes", "raw bytes of all chunks", |f| {
        one(f.stats.unique_bytes)
    }),
    gauge("stratafs_stored_bytes", "bytes", "bytes of all containers", |f| {
        one(f.stats.stored_bytes)
    }),
    gauge("stratafs_metadata_bytes", "bytes", "bytes of the metadata database", |f| {
        one(f.stats.metadata_bytes)
    }),
    gauge("stratafs_chunks", "chunks", "chunks there are", |f| one(f.stats.chunks)),
    gauge("stratafs_containers", "containers", "containers there are", |f| one(f.stats.containers)),
    counter("stratafs_written_bytes_total", "bytes", "raw bytes written", |f| {
        classes(f, |c| c.written_bytes)
    })
    .by("class"),
    counter("stratafs_zero_bytes_total", "bytes", "of these: zeros, which became holes", |f| {
        classes(f, |c| c.zero_bytes)
    })
    .by("class"),
    counter("stratafs_duplicate_bytes_total", "bytes", "of these: duplicates", |f| {
        classes(f, |c| c.duplicate_bytes)
    })
    .by("class"),
    counter("stratafs_new_bytes_total", "bytes", "of these: new data", |f| {
        classes(f, |c| c.new_bytes)
    })
    .by("class"),
    counter(
        "stratafs_new_stored_bytes_total",
        "bytes",
        "what the new data took when stored",
        |f| classes(f, |c| c.stored_bytes),
    )
    .by("class"),
    gauge("stratafs_class_unique_bytes", "bytes", "raw bytes of the chunks of a class now", |f| {
        classes(f, |c| c.now_unique_bytes)
    })
    .by("class"),
    gauge("stratafs_class_stored_bytes", "bytes", "bytes of the containers of a class now", |f| {
        classes(f, |c| c.now_stored_bytes)
    })
    .by("class"),
    gauge("stratafs_shard_up", "bool", "1 if the shard is there", |f| {
        shards(f, |s| u64::from(s.missing.is_none()))
    })
    .by("shard"),
    gauge("stratafs_shard_capacity_bytes", "bytes", "size of the file system below", |f| {
        shards(f, |s| s.total_bytes)
    })
    .by("shard"),
    gauge("stratafs_shard_free_bytes", "bytes", "what is free there", |f| {
        shards(f, |s| s.free_bytes)
    })
    .by("shard"),
    gauge("stratafs_shard_stored_bytes", "bytes", "bytes of the containers on it", |f| {
        shards(f, |s| s.stored_bytes)
    })
    .by("shard"),
    gauge("stratafs_damaged_chunks", "chunks", "known to be damaged; up to a million", |f| {
        one(f.status.verified.damaged_chunks)
    }),
    gauge("stratafs_flawed_containers", "containers", "with damage that hits no chunk", |f| {
        one(f.status.verified.flawed_containers)
    }),
    gauge("stratafs_never_verified_bytes", "bytes", "stored and never verified", |f| {
        one(f.status.verified.never_verified_bytes)
    }),
    gauge("stratafs_verified_30_days_bytes", "bytes", "verified in the last 30 days", |f| {
        one(f.status.verified.verified_30_days_bytes)
    }),
    gauge(
        "stratafs_last_scrub_timestamp_seconds",
        "seconds since 1970",
        "when the last full pass of the scrub ended; 0 for never",
        |f| one(f.status.verified.last_pass_ended.unwrap_or(0)),
    ),
    gauge("stratafs_reclaimable_bytes", "bytes", "what gc would free, when it last looked", |f| {
        one(f.status.gc.mark.reclaimable_bytes)
    }),
    gauge("stratafs_dropped_bytes", "bytes", "raw bytes deleted since gc last looked", |f| {
        one(f.status.gc.dropped_bytes)
    }),
    gauge("stratafs_gc_running", "bool", "1 while gc runs", |f| {
        flag(f.status.gc.running.is_some())
    }),
    gauge(
        "stratafs_last_gc_timestamp_seconds",
        "seconds since 1970",
        "when gc last ended; 0 for never",
        |f| one(f.status.gc.last.at_secs),
    ),
    counter("stratafs_commits_total", "commits", "commits since it was opened", |f| {
        one(f.stats.activity.commits)
    }),
    counter("stratafs_requests_total", "requests", "calls of the kernel answered", |f| {
        one(f.stats.activity.requests)
    }),
    counter(
        "stratafs_faults_total",
        "requests",
        "of these: failed through no fault of the caller",
        |f| one(f.stats.activity.faults),
    ),
    counter("stratafs_frames_read_total", "frames", "read from shards and decoded", |f| {
        one(f.stats.activity.frames_read)
    }),
    counter("stratafs_decoded_bytes_total", "bytes", "raw bytes of the frames read", |f| {
        one(f.stats.activity.decoded_bytes)
    }),
    counter(
        "stratafs_container_changes_total",
        "frames",
        "of the frames read: in another container than the one before",
        |f| one(f.stats.activity.container_changes),
    ),
    counter("stratafs_frame_cache_hits_total", "frames", "found in the cache", |f| {
        one(f.stats.activity.frame_cache_hits)
    }),
    counter("stratafs_index_gets_total", "fingerprints", "looked up in the database", |f| {
        one(f.stats.activity.index_gets)
    }),
    counter(
        "stratafs_index_scans_total",
        "scans",
        "that loaded the fingerprints behind a known chunk",
        |f| one(f.stats.activity.index_scans),
    ),
    gauge("stratafs_memory_bytes", "bytes", "what is held in memory, by what holds it", |f| {
        f.stats.memory.iter().map(|(holder, m)| (holder.clone(), number(m.bytes))).collect()
    })
    .by("holder"),
    gauge("stratafs_memory_bound_bytes", "bytes", "what it may hold", |f| {
        f.stats.memory.iter().map(|(holder, m)| (holder.clone(), number(m.bound_bytes))).collect()
    })
    .by("holder"),
    gauge("stratafs_resident_bytes", "bytes", "memory of the process", |f| {
        one(f.stats.resident_bytes)
    }),
];

fn one(value: u64) -> Samples {
    vec![(String::new(), number(value))]
}

fn flag(value: bool) -> Samples {
    one(u64::from(value))
}

/// Beyond 2^53 the last digits are lost, as in Prometheus itself.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}

fn classes(facts: &Facts<'_>, of: fn(&ClassReport) -> u64) -> Samples {
    facts.stats.classes.iter().map(|c| (c.class.clone(), number(of(c)))).collect()
}

fn shards(facts: &Facts<'_>, of: fn(&ShardInfo) -> u64) -> Samples {
    facts.status.shards.iter().map(|s| (s.name.clone(), number(of(s)))).collect()
}

/// All metrics in the text format of Prometheus, version 0.0.4.
#[must_use]
pub fn text(facts: &Facts<'_>) -> String {
    let mut text = String::new();
    let volume = escape(&facts.status.dir);
    for metric in METRICS {
        let (name, kind) = (metric.name, metric.kind.name());
        let _ = writeln!(text, "# HELP {name} {} ({})", metric.meaning, metric.unit);
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (label, value) in (metric.read)(facts) {
            let more = match metric.label {
                "" => String::new(),
                key => format!(",{key}=\"{}\"", escape(&label)),
            };
            let _ = writeln!(text, "{name}{{volume=\"{volume}\"{more}}} {value}");
        }
    }
    text
}

/// The value of a label, as it has to be written.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
