//! Sentences of the design, held by counters: no test here looks at a clock.

mod ages;
mod away;
mod bytes;
mod classes;
mod dedup;
mod diff;
mod gc;
mod gc_races;
mod gc_runs;
mod instants;
mod listing;
mod memory;
mod opening;
mod removal;
mod room;
mod scrub;
mod small;
mod streams;
mod told;
mod usage;
