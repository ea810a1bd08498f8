//! Promise P1, attacked: power cuts and failing disks at every fault point.
//!
//! The volume runs on tables and shards in memory that keep apart what readers see and what is
//! durable (`machine`). A seeded workload (`work`) notes the model's state after every change.
//! `sweep` cuts the power, or lets a step fail, at every point, opens what is left, and compares
//! the whole tree and every snapshot with the states the model passed through.
//!
//! `STRATAFS_CRASH_SEED=N` begins with workload N, `STRATAFS_CRASH_CASES=M` runs M workloads.

mod fsync;
mod local;
mod machine;
mod points;
mod state;
mod sweep;
mod work;
