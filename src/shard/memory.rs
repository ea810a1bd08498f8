//! A shard in memory, for tests: it also plays a power cut.
//!
//! Keeps apart what readers see and what is durable. A power cut leaves what [`Shard`] and
//! [`Appender`] promise and nothing more: a container whose sync was confirmed keeps the bytes it
//! had then. Bytes behind them, containers and deletions that nobody synced may be there or not,
//! and unsynced bytes may be torn: each block as written, as before, zero or noise.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Appender, Shard, Space};
use crate::env::{Hold, Power};
use crate::error::{Error, Result};
use crate::types::ContainerId;

/// Capacity a memory shard claims to have; no test writes as much.
const TOTAL_BYTES: u64 = 1 << 40;
/// What the system says of a bad sector.
const EIO: i32 = 5;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// One name, and what may be found under it.
#[derive(Clone, Debug, Default)]
struct Object {
    /// What readers see; `None` once it is deleted.
    live: Option<Vec<u8>>,
    /// Bytes that a sync has confirmed, of this container or of one deleted before it.
    durable: Option<Vec<u8>>,
    /// Bytes that the device cannot read.
    unreadable: Option<Range<u64>>,
    /// The name stands for `durable` and what was appended since. Otherwise it was made or deleted
    /// after the last sync.
    firm: bool,
    /// What lay behind a cut that is not synced.
    behind: Vec<u8>,
}

impl Object {
    fn on_disk(bytes: Vec<u8>) -> Self {
        Self { live: Some(bytes.clone()), durable: Some(bytes), firm: true, ..Self::default() }
    }

    /// What the power cut left; `None` is no container. `pick` gives numbers below its argument.
    fn after_power_cut(&self, pick: &mut dyn FnMut(u64) -> u64) -> Option<Vec<u8>> {
        let live = self.live.as_deref().unwrap_or_default();
        let Some(durable) = &self.durable else {
            return (pick(3) > 0).then(|| torn(live, &[], pick));
        };
        let unsynced = if self.firm { live.get(durable.len()..).unwrap_or_default() } else { &[] };
        let with_tail = |pick: &mut dyn FnMut(u64) -> u64| {
            [durable.as_slice(), &torn(unsynced, &self.behind, pick)].concat()
        };
        match if self.firm { 0 } else { pick(3) } {
            0 => Some(with_tail(pick)),
            1 => None,
            _ => self.live.as_deref().map(|live| torn(live, &[], pick)),
        }
    }
}

/// A version of `new`, which was being written over `old`, that a power cut may leave.
fn torn(new: &[u8], old: &[u8], pick: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
    match pick(4) {
        0 => return Vec::new(),
        1 => return new.to_vec(),
        2 => return old.to_vec(),
        _ => {}
    }
    let longest = new.len().max(old.len()) as u64;
    let mut bytes = vec![0; usize::try_from(pick(longest + 1)).unwrap_or(0)];
    for (number, sector) in bytes.chunks_mut(SECTOR).enumerate() {
        let from = number * SECTOR;
        let source = match pick(4) {
            0 => new.get(from..).unwrap_or_default(),
            1 => old.get(from..).unwrap_or_default(),
            2 => &[],
            _ => {
                let noise = pick(256).to_le_bytes()[0];
                sector.fill(noise);
                continue;
            }
        };
        let len = source.len().min(sector.len());
        sector[..len].copy_from_slice(&source[..len]);
    }
    bytes
}

type Objects = BTreeMap<ContainerId, Object>;

/// Containers as byte vectors. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryShard {
    objects: Arc<Mutex<Objects>>,
    power: Power,
}

impl MemoryShard {
    /// An empty shard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty shard that runs on `power`.
    #[must_use]
    pub fn powered_by(power: Power) -> Self {
        Self { objects: Arc::default(), power }
    }

    /// The least that a power cut now would leave: of each container the bytes that its last sync
    /// confirmed; what was deleted is gone.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        self.kept(Power::default(), |object| {
            object.durable.clone().filter(|_| object.live.is_some())
        })
    }

    /// One of the states that a power cut may leave, on new `power`. `pick` chooses: it gives a
    /// number below its argument.
    #[must_use]
    pub fn torn_by_power_cut(&self, power: Power, pick: &mut dyn FnMut(u64) -> u64) -> Self {
        self.kept(power, |object| object.after_power_cut(pick))
    }

    fn kept(&self, power: Power, mut keep: impl FnMut(&Object) -> Option<Vec<u8>>) -> Self {
        let objects = self.objects.lock();
        let kept = objects.iter().filter_map(|(id, o)| Some((*id, Object::on_disk(keep(o)?))));
        Self { objects: Arc::new(Mutex::new(kept.collect())), power }
    }

    /// Changes the bytes of a container behind everybody's back. False if it does not exist.
    pub fn damage(&self, id: ContainerId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.objects.lock().get_mut(&id) {
            Some(Object { live: Some(bytes), durable, .. }) => {
                change(bytes);
                *durable = Some(bytes.clone());
                true
            }
            _ => false,
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

    /// Runs `look` on the bytes of a container.
    fn with<T>(
        &self,
        id: ContainerId,
        look: impl FnOnce(&Object, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let _on = self.power.hold()?;
        let objects = self.objects.lock();
        let object = objects.get(&id).and_then(|object| Some((object, object.live.as_deref()?)));
        let (object, live) = object.ok_or_else(|| self.missing(id))?;
        look(object, live)
    }

    fn appender(&self, id: ContainerId, len: u64) -> Box<dyn Appender> {
        Box::new(MemoryAppender { shard: self.clone(), id, len })
    }
}

/// An operation that the power cut met may have been done; nobody is told.
fn told<T>(on: Result<Hold<'_>>, done: T) -> Result<T> {
    on.map(|_| done)
}

impl Shard for MemoryShard {
    fn create(&self, id: ContainerId) -> Result<Box<dyn Appender>> {
        let on = self.power.hold();
        let mut objects = self.objects.lock();
        let object = objects.entry(id).or_default();
        if object.live.is_some() {
            return Err(Error::Exists { what: format!("Container {id} on {}", self.place()) });
        }
        (object.live, object.firm) = (Some(Vec::new()), false);
        told(on, self.appender(id, 0))
    }

    fn reopen(&self, id: ContainerId, len: u64) -> Result<Box<dyn Appender>> {
        let on = self.power.hold();
        let mut objects = self.objects.lock();
        let object = objects.get_mut(&id).filter(|object| object.live.is_some());
        let object = object.ok_or_else(|| self.missing(id))?;
        let bytes = object.live.as_mut().expect("it was asked for");
        let have = bytes.len() as u64;
        if have < len {
            return Err(super::too_short(id, &self.place(), have, len));
        }
        let keep = usize::try_from(len).unwrap_or(usize::MAX);
        bytes.truncate(keep);
        if let Some(durable) = &mut object.durable
            && durable.len() > keep
        {
            object.behind = durable.split_off(keep);
        }
        told(on, self.appender(id, len))
    }

    fn read_at(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.with(id, |object, bytes| {
            let have = bytes.len() as u64;
            let end = offset.saturating_add(buf.len() as u64);
            if object.unreadable.as_ref().is_some_and(|bad| offset < bad.end && bad.start < end) {
                let place = Path::new("memory");
                return Err(Error::io("read", place, io::Error::from_raw_os_error(EIO)));
            }
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let part = range.and_then(|(from, to)| bytes.get(from..to));
            let short = || super::too_short(id, &self.place(), have, end);
            buf.copy_from_slice(part.ok_or_else(short)?);
            Ok(())
        })
    }

    fn len(&self, id: ContainerId) -> Result<u64> {
        self.with(id, |_, bytes| Ok(bytes.len() as u64))
    }

    fn delete(&self, id: ContainerId) -> Result<()> {
        let on = self.power.hold();
        if let Some(object) = self.objects.lock().get_mut(&id) {
            (object.live, object.firm) = (None, false);
        }
        told(on, ())
    }

    fn list(&self) -> Result<Vec<ContainerId>> {
        let _on = self.power.hold()?;
        let objects = self.objects.lock();
        Ok(objects.iter().filter(|(_, o)| o.live.is_some()).map(|(id, _)| *id).collect())
    }

    fn space(&self) -> Result<Space> {
        let _on = self.power.hold()?;
        let objects = self.objects.lock();
        let used: u64 = objects.values().flat_map(|o| &o.live).map(|b| b.len() as u64).sum();
        let free_bytes = TOTAL_BYTES.saturating_sub(used);
        let (total_bytes, unused_bytes) = (TOTAL_BYTES, free_bytes);
        Ok(Space { total_bytes, free_bytes, unused_bytes, disk: None })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryAppender {
    shard: MemoryShard,
    id: ContainerId,
    len: u64,
}

impl MemoryAppender {
    /// Runs `change` on the container's object, whose bytes are there.
    fn change(&self, change: impl FnOnce(&mut Object)) -> Result<()> {
        let mut objects = self.shard.objects.lock();
        let object = objects.get_mut(&self.id).filter(|object| object.live.is_some());
        change(object.ok_or_else(|| self.shard.missing(self.id))?);
        Ok(())
    }
}

impl Appender for MemoryAppender {
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64> {
        let on = self.shard.power.hold();
        let offset = self.len;
        let mut end = offset;
        self.change(|object| {
            let bytes = object.live.as_mut().expect("change looks for it");
            bytes.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            end = bytes.len() as u64;
        })?;
        told(on, ())?;
        self.len = end;
        Ok(offset)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<()> {
        let _on = self.shard.power.hold()?;
        self.change(|object| {
            object.durable.clone_from(&object.live);
            object.firm = true;
            object.behind.clear();
        })
    }
}
