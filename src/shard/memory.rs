//! A shard in memory, for tests: it also plays a power cut.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Appender, Shard, Space};
use crate::error::{Error, Result};
use crate::types::ContainerId;

/// Capacity a memory shard claims to have; no test writes as much.
const TOTAL_BYTES: u64 = 1 << 40;
/// What the system says of a bad sector.
const EIO: i32 = 5;

#[derive(Clone, Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    /// What the last sync confirmed, if there was one.
    durable: Option<Vec<u8>>,
    /// Bytes that the device cannot read.
    unreadable: Option<Range<u64>>,
}

type Objects = Arc<Mutex<BTreeMap<ContainerId, Object>>>;

/// Containers as byte vectors. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryShard {
    objects: Objects,
}

impl MemoryShard {
    /// An empty shard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power cut now would leave: of each container the bytes its last sync confirmed.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        let objects = self.objects.lock();
        let kept = objects.iter().filter_map(|(id, object)| {
            let durable = object.durable.clone()?;
            Some((
                *id,
                Object { bytes: durable.clone(), durable: Some(durable), ..Object::default() },
            ))
        });
        Self { objects: Arc::new(Mutex::new(kept.collect())) }
    }

    /// Changes the bytes of a container behind everybody's back. False if it does not exist.
    pub fn damage(&self, id: ContainerId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.objects.lock().get_mut(&id) {
            Some(object) => {
                change(&mut object.bytes);
                object.durable = Some(object.bytes.clone());
                true
            }
            None => false,
        }
    }

    /// Lets every read that touches these bytes of a container fail as a bad sector does.
    pub fn fail_reads(&self, id: ContainerId, range: Option<Range<u64>>) {
        if let Some(object) = self.objects.lock().get_mut(&id) {
            object.unreadable = range;
        }
    }

    fn missing(&self, id: ContainerId) -> Error {
        Error::not_found(format!("container {id} on {}", self.place()))
    }
}

impl Shard for MemoryShard {
    fn create(&self, id: ContainerId) -> Result<Box<dyn Appender>> {
        let mut objects = self.objects.lock();
        if objects.contains_key(&id) {
            return Err(Error::Exists { what: format!("Container {id} on {}", self.place()) });
        }
        objects.insert(id, Object::default());
        Ok(Box::new(MemoryAppender { objects: Arc::clone(&self.objects), id, len: 0 }))
    }

    fn reopen(&self, id: ContainerId, len: u64) -> Result<Box<dyn Appender>> {
        let mut objects = self.objects.lock();
        let object = objects.get_mut(&id).ok_or_else(|| self.missing(id))?;
        let have = object.bytes.len() as u64;
        if have < len {
            return Err(super::too_short(id, &self.place(), have, len));
        }
        object.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(Box::new(MemoryAppender { objects: Arc::clone(&self.objects), id, len }))
    }

    fn read_at(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<()> {
        let objects = self.objects.lock();
        let object = objects.get(&id).ok_or_else(|| self.missing(id))?;
        let have = object.bytes.len() as u64;
        let end = offset.saturating_add(buf.len() as u64);
        if object.unreadable.as_ref().is_some_and(|bad| offset < bad.end && bad.start < end) {
            let place = Path::new("memory");
            return Err(Error::io("read", place, io::Error::from_raw_os_error(EIO)));
        }
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        let part = range.and_then(|(from, to)| object.bytes.get(from..to));
        buf.copy_from_slice(part.ok_or_else(|| super::too_short(id, &self.place(), have, end))?);
        Ok(())
    }

    fn len(&self, id: ContainerId) -> Result<u64> {
        let objects = self.objects.lock();
        objects.get(&id).map(|o| o.bytes.len() as u64).ok_or_else(|| self.missing(id))
    }

    fn delete(&self, id: ContainerId) -> Result<()> {
        self.objects.lock().remove(&id);
        Ok(())
    }

    fn list(&self) -> Result<Vec<ContainerId>> {
        Ok(self.objects.lock().keys().copied().collect())
    }

    fn space(&self) -> Result<Space> {
        let used: u64 = self.objects.lock().values().map(|o| o.bytes.len() as u64).sum();
        Ok(Space { total_bytes: TOTAL_BYTES, free_bytes: TOTAL_BYTES.saturating_sub(used) })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryAppender {
    objects: Objects,
    id: ContainerId,
    len: u64,
}

impl MemoryAppender {
    fn gone(&self) -> Error {
        Error::not_found(format!("container {} on memory", self.id))
    }
}

impl Appender for MemoryAppender {
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64> {
        let mut objects = self.objects.lock();
        let object = objects.get_mut(&self.id).ok_or_else(|| self.gone())?;
        let offset = self.len;
        object.bytes.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        for part in parts {
            object.bytes.extend_from_slice(part);
        }
        self.len = object.bytes.len() as u64;
        Ok(offset)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<()> {
        let mut objects = self.objects.lock();
        let object = objects.get_mut(&self.id).ok_or_else(|| self.gone())?;
        object.durable = Some(object.bytes.clone());
        Ok(())
    }
}
