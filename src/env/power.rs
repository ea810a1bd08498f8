//! The power that media in memory run on, so that a test can cut it.
//!
//! Guarantees: what an operation that holds the power changes, it changes before the cut; after it
//! nothing is confirmed any more. So the state at the cut can be looked at in peace.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::error::{Error, Result};

/// On until it is cut. Clones are the same power.
#[derive(Clone, Debug, Default)]
pub struct Power {
    is_cut: Arc<RwLock<bool>>,
}

/// While it lives the power stays on. Nobody takes a second one meanwhile.
#[derive(Debug)]
pub struct Hold<'a> {
    _on: RwLockReadGuard<'a, bool>,
}

impl Power {
    /// Keeps the power on for one operation.
    ///
    /// # Errors
    /// `Io` once it is cut.
    pub fn hold(&self) -> Result<Hold<'_>> {
        let on = self.is_cut.read();
        if *on { Err(Self::gone()) } else { Ok(Hold { _on: on }) }
    }

    /// Cuts it for good, after the operations under way.
    pub fn cut(&self) {
        *self.is_cut.write() = true;
    }

    /// True after [`Power::cut`].
    #[must_use]
    pub fn is_cut(&self) -> bool {
        *self.is_cut.read()
    }

    /// What everybody is told after the cut.
    #[must_use]
    pub fn gone() -> Error {
        Error::io("reach", Path::new("the disk"), io::Error::other("the power is cut"))
    }
}
