//! The locks of the gate. The tests have another file in this place: see `gate`.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
