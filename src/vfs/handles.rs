//! Open files: their numbers, and who uses an inode how.
//!
//! An inode is read and written either through the kernel's page cache or past it, never both at a
//! time: pages that a reader brings in while another handle writes past the cache would stay stale.
//! So a handle goes past the cache only if it wants to and no other goes through it, or if another
//! does so already. This is why the kernel needs no telling to drop pages.
//!
//! While the content of an inode is given to the kernel (`giving`), whoever would open it or change
//! its length waits; readers, too: their requests could hold a page for which the giver waits, with
//! all request loops giving. A giver waits for no request.
//!
//! Both locks are leaves and are never held together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::types::{At, Ino};
use crate::volume::OpenFile;

/// An open file.
pub(super) struct Handle {
    pub(super) file: OpenFile,
    pub(super) writes: bool,
    direct: bool,
}

/// How an inode of the live tree is used.
#[derive(Debug, Default)]
struct Uses {
    cached: u32,
    direct: u32,
    writers: u32,
    /// Known to have no set-id bits and no capabilities.
    no_privileges: bool,
    /// Its content is on its way to the kernel.
    giving: bool,
    /// Changes of its length under way.
    resizing: u32,
}

impl Uses {
    fn is_used(&self) -> bool {
        self.cached + self.direct + self.resizing > 0 || self.giving
    }
}

/// Keeps others from an inode while its content is given, or its content from being given while
/// its length changes.
pub(super) struct Alone<'a> {
    handles: &'a Handles,
    ino: Ino,
    resizing: bool,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut all = self.handles.uses.lock();
        if let Some(uses) = all.get_mut(&self.ino) {
            uses.resizing -= u32::from(self.resizing);
            uses.giving &= self.resizing;
            if !uses.is_used() {
                all.remove(&self.ino);
            }
        }
        drop(all);
        self.handles.given.notify_all();
    }
}

/// All open files.
#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Handle>>>,
    uses: Mutex<HashMap<Ino, Uses>>,
    /// Somebody has ended giving.
    given: Condvar,
}

impl Handles {
    /// Adds an open file; says whether it goes past the page cache.
    pub(super) fn insert(&self, file: OpenFile, writes: bool, wants_direct: bool) -> (u64, bool) {
        let direct = file.at() == At::Live && self.add_use(file.ino(), writes, wants_direct);
        let number = self.next.fetch_add(1, Relaxed);
        self.open.write().insert(number, Arc::new(Handle { file, writes, direct }));
        (number, direct)
    }

    /// The open file with this number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.read().get(&number).cloned()
    }

    /// Forgets an open file; true if it was its inode's last writer.
    pub(super) fn remove(&self, number: u64) -> Option<(Arc<Handle>, bool)> {
        let handle = self.open.write().remove(&number)?;
        let (ino, live) = (handle.file.ino(), handle.file.at() == At::Live);
        let last = live && self.end_use(ino, handle.writes, handle.direct);
        Some((handle, last))
    }

    /// The uses, when the inode is not being given.
    fn settled(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, Uses>> {
        let mut all = self.uses.lock();
        while all.get(&ino).is_some_and(|uses| uses.giving) {
            self.given.wait(&mut all);
        }
        all
    }

    /// Lets the content of an open inode be given, if only this reader has it open and nobody
    /// changes its length; until the answer is dropped nobody will.
    pub(super) fn alone(&self, handle: &Handle) -> Option<Alone<'_>> {
        if handle.direct || handle.writes { None } else { self.alone_in(handle.file.ino()) }
    }

    /// As [`Handles::alone`], for who has the inode open to read it through the cache.
    fn alone_in(&self, ino: Ino) -> Option<Alone<'_>> {
        let mut all = self.uses.lock();
        let uses = all.get_mut(&ino)?;
        if uses.direct > 0 || uses.cached != 1 || uses.resizing > 0 || uses.giving {
            return None;
        }
        uses.giving = true;
        Some(Alone { handles: self, ino, resizing: false })
    }

    /// Lets the length of an inode be changed.
    pub(super) fn resize(&self, ino: Ino) -> Alone<'_> {
        self.settled(ino).entry(ino).or_default().resizing += 1;
        Alone { handles: self, ino, resizing: true }
    }

    fn add_use(&self, ino: Ino, writes: bool, wants_direct: bool) -> bool {
        let mut uses = self.settled(ino);
        let uses = uses.entry(ino).or_default();
        let direct = uses.direct > 0 || (wants_direct && uses.cached == 0);
        *(if direct { &mut uses.direct } else { &mut uses.cached }) += 1;
        uses.writers += u32::from(writes);
        direct
    }

    fn end_use(&self, ino: Ino, writes: bool, direct: bool) -> bool {
        let mut all = self.uses.lock();
        let Some(uses) = all.get_mut(&ino) else { return false };
        *(if direct { &mut uses.direct } else { &mut uses.cached }) -= 1;
        uses.writers -= u32::from(writes);
        let last_writer = writes && uses.writers == 0;
        if !uses.is_used() {
            all.remove(&ino);
        }
        last_writer
    }

    /// True while somebody has the inode open for writing.
    pub(super) fn is_written(&self, ino: Ino) -> bool {
        self.uses.lock().get(&ino).is_some_and(|uses| uses.writers > 0)
    }

    /// True if the open inode is known to have no set-id bits and no capabilities.
    pub(super) fn has_no_privileges(&self, ino: Ino) -> bool {
        self.uses.lock().get(&ino).is_some_and(|uses| uses.no_privileges)
    }

    /// Remembers that for as long as the inode is open.
    pub(super) fn set_no_privileges(&self, ino: Ino) {
        if let Some(uses) = self.uses.lock().get_mut(&ino) {
            uses.no_privileges = true;
        }
    }

    /// Set-id bits or capabilities were just given.
    pub(super) fn may_have_privileges(&self, ino: Ino) {
        if let Some(uses) = self.uses.lock().get_mut(&ino) {
            uses.no_privileges = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(7);

    #[test]
    fn a_writer_goes_past_the_cache_only_while_nobody_goes_through_it() {
        let handles = Handles::default();
        assert!(handles.add_use(INO, true, true), "alone");
        assert!(handles.add_use(INO, false, false), "a reader beside it follows");
        assert!(!handles.add_use(Ino(8), false, false), "another file");
        assert!(!handles.add_use(Ino(8), true, true), "a reader is in the cache already");
    }

    #[test]
    fn only_one_reader_alone_is_given_to() {
        let handles = Handles::default();
        assert!(handles.alone_in(INO).is_none(), "not open");
        handles.add_use(INO, false, false);
        let alone = handles.alone_in(INO).expect("nobody else has it open");
        assert!(handles.alone_in(INO).is_none(), "it is being given");
        drop(alone);
        for (writes, direct) in [(false, false), (true, false)] {
            handles.add_use(INO, writes, direct);
            assert!(handles.alone_in(INO).is_none(), "somebody else has it open");
            assert_eq!(handles.end_use(INO, writes, direct), writes);
        }
        let resizes = [handles.resize(INO), handles.resize(INO)];
        for resize in resizes {
            assert!(handles.alone_in(INO).is_none(), "its length changes");
            drop(resize);
        }
        assert!(handles.alone_in(INO).is_some());
        handles.end_use(INO, false, false);
        handles.add_use(INO, true, true);
        assert!(handles.alone_in(INO).is_none(), "past the cache");
        handles.end_use(INO, true, true);
        drop(handles.resize(INO));
        assert!(handles.uses.lock().is_empty(), "nothing is left of what is not used");
    }

    /// Whoever comes while a content is given does nothing before it was.
    #[test]
    fn who_comes_while_it_is_given_waits() {
        for _ in 0..50 {
            let handles = Handles::default();
            handles.add_use(INO, false, false);
            let log = Mutex::new(Vec::new());
            let coming = AtomicU64::new(0);
            std::thread::scope(|scope| {
                let alone = handles.alone_in(INO);
                scope.spawn(|| {
                    coming.fetch_add(1, Relaxed);
                    handles.add_use(INO, true, true);
                    log.lock().push("opened");
                });
                scope.spawn(|| {
                    coming.fetch_add(1, Relaxed);
                    let _resize = handles.resize(INO);
                    log.lock().push("resized");
                });
                while coming.load(Relaxed) < 2 {
                    std::thread::yield_now();
                }
                (0..100).for_each(|_| std::thread::yield_now());
                log.lock().push("given");
                drop(alone);
            });
            let log = log.into_inner();
            assert_eq!((log[0], log.len()), ("given", 3), "{log:?}");
        }
    }

    #[test]
    fn privileges_are_known_only_while_the_inode_is_open() {
        let handles = Handles::default();
        handles.set_no_privileges(INO);
        assert!(!handles.has_no_privileges(INO), "not open");
        handles.add_use(INO, true, true);
        handles.set_no_privileges(INO);
        assert!(handles.has_no_privileges(INO));
        handles.may_have_privileges(INO);
        assert!(!handles.has_no_privileges(INO));
    }
}
