//! Stored bytes against speed: ways to cut, group sizes and levels, per class, over real files.
//!
//! `sizes DIR…` reads the files below each directory in turn, as one generation after the other,
//! and tells their classes apart. For each class alone it prints what every way to cut, every
//! group size and every level would store, and at what speed; then the same for all files together,
//! where one class finds what another has stored. `-- -c NAME` does one class only. Nothing is
//! written: cutting, fingerprints, grouping and codec are the library's, on one core, in memory.
//!
//! `sizes -t VOLUME` tells what the rows of a volume that is not mounted take, by table: bytes of
//! keys and values, and of RocksDB's files. It writes what is only in the log into files first.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stratafs::classify::{Chunking, ClassSpec, Classifier, Facts};
use stratafs::codec::{CodecChoice, encode};
use stratafs::config::{Config, DATABASE, IMAGE, first_cuts};
use stratafs::ingest::cuts;
use stratafs::kv::{KeyRange, Kv, Order, RocksKv, RocksOptions, Table};
use stratafs::limits::FRAME_RAW_BYTES_MAX;
use stratafs::types::{ClassId, Fingerprint};

/// Bytes per chunk in tables chunk and fingerprint, and in directory and footer.
const CHUNK_ROWS_BYTES: u64 = 110;
const CHUNK_ENTRIES_BYTES: u64 = 2 * 44;
/// Bytes per frame: its header twice, its offset, half of its padding.
const FRAME_BYTES: u64 = 2 * 32 + 4 + 4;
/// Bytes per reference in table extent.
const EXTENT_BYTES: u64 = 20;
const KIB: u32 = 1024;

#[derive(Clone, Copy)]
struct Plan {
    chunking: Chunking,
    group_bytes: u32,
    level: i32,
}

impl Plan {
    fn built_in(class: &ClassSpec) -> Self {
        Self { chunking: class.chunking, group_bytes: class.group_bytes, level: 3 }
    }
}

#[derive(Default)]
struct Sum {
    raw: u64,
    new: u64,
    chunks: u64,
    references: u64,
    frames: u64,
    payload: u64,
    cutting: Duration,
    encoding: Duration,
}

impl Sum {
    fn stored(&self) -> u64 {
        self.payload + FRAME_BYTES * self.frames + CHUNK_ENTRIES_BYTES * self.chunks + self.rows()
    }

    fn rows(&self) -> u64 {
        CHUNK_ROWS_BYTES * self.chunks + EXTENT_BYTES * self.references
    }

    fn frame(&mut self, raw: &[u8], level: i32) {
        let begin = Instant::now();
        self.payload += encode(CodecChoice::Zstd { level }, raw).bytes.len() as u64;
        self.encoding += begin.elapsed();
        self.frames += 1;
    }
}

/// What the chunk store would hold, in memory.
#[derive(Default)]
struct Store {
    known: HashSet<[u8; 16]>,
    groups: HashMap<ClassId, (Plan, Vec<u8>)>,
    sum: Sum,
}

impl Store {
    fn add(&mut self, class: ClassId, plan: Plan, data: &[u8]) {
        self.sum.raw += data.len() as u64;
        let begin = Instant::now();
        let (chunks, _) = cuts(plan.chunking, data, 0, false);
        let prints: Vec<_> =
            chunks.iter().map(|range| Fingerprint::of(&data[range.clone()])).collect();
        self.sum.cutting += begin.elapsed();
        self.sum.references += chunks.len() as u64;
        for (range, print) in chunks.into_iter().zip(prints) {
            if self.known.insert(print.0[..16].try_into().expect("16 bytes")) {
                self.put(class, plan, &data[range]);
            }
        }
    }

    /// As `Pending::add` does it.
    fn put(&mut self, class: ClassId, plan: Plan, raw: &[u8]) {
        self.sum.new += raw.len() as u64;
        self.sum.chunks += 1;
        if raw.len() >= plan.group_bytes as usize / 2 {
            return self.sum.frame(raw, plan.level);
        }
        let (_, group) = self.groups.entry(class).or_insert_with(|| (plan, Vec::new()));
        if group.len() + raw.len() > FRAME_RAW_BYTES_MAX as usize {
            self.sum.frame(group, plan.level);
            group.clear();
        }
        group.extend_from_slice(raw);
        if group.len() >= plan.group_bytes as usize {
            self.sum.frame(group, plan.level);
            group.clear();
        }
    }

    fn close(mut self) -> Sum {
        for (plan, group) in self.groups.values().filter(|(_, group)| !group.is_empty()) {
            self.sum.frame(group, plan.level);
        }
        self.sum
    }
}

/// Files in the order in which a copying program comes by.
struct Files(Vec<(PathBuf, ClassId)>);

impl Files {
    fn below(dirs: &[PathBuf], classifier: &Classifier) -> io::Result<Self> {
        let mut files = Self(Vec::new());
        dirs.iter().try_for_each(|dir| files.walk(dir, classifier))?;
        Ok(files)
    }

    fn walk(&mut self, dir: &Path, classifier: &Classifier) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                self.walk(&path, classifier)?;
            } else if kind.is_file() {
                let data = fs::read(&path)?;
                let head = &data[..data.len().min(classifier.head_bytes())];
                let (name, size) = (entry.file_name(), data.len() as u64);
                let name = name.as_encoded_bytes();
                let class = classifier.classify(&Facts { name, size, head, ..Facts::default() });
                self.0.push((path, class.class));
            }
        }
        Ok(())
    }

    fn measure(&self, plan: impl Fn(ClassId) -> Option<Plan>) -> io::Result<Sum> {
        let mut store = Store::default();
        for (path, class) in &self.0 {
            if let Some(plan) = plan(*class) {
                store.add(*class, plan, &fs::read(path)?);
            }
        }
        Ok(store.close())
    }
}

fn heading() {
    println!(
        "{:26}{:>7}{:>9}{:>6}{:>9}{:>9}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}",
        "class",
        "cut",
        "KiB",
        "group",
        "level",
        "new MB",
        "chunks",
        "payload",
        "heads",
        "rows",
        "stored MB",
        "MB/s"
    );
}

/// One line: speed is that of one core, over all bytes for cutting and new ones for the codec.
#[allow(clippy::cast_precision_loss)]
fn line(what: &str, plan: Option<Plan>, sum: &Sum) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (cut, nominal, group, level) = plan.map_or_else(Default::default, |plan| {
        let nominal = (plan.chunking.nominal() / KIB).to_string();
        let group = (plan.group_bytes / KIB).to_string();
        (plan.chunking.kind(), nominal, group, plan.level.to_string())
    });
    let heads = sum.stored() - sum.payload - sum.rows();
    println!(
        "{what:26}{cut:>7}{nominal:>9}{group:>6}{level:>9}{:>9.1}{:>8}{:>8.2}{:>8.2}{:>8.2}{:>10.2}\
         {:>10.0}",
        mb(sum.new),
        sum.chunks,
        mb(sum.payload),
        mb(heads),
        mb(sum.rows()),
        mb(sum.stored()),
        mb(sum.raw) / (sum.cutting + sum.encoding).as_secs_f64(),
    );
}

/// Every way for one class, the built-in one first.
fn each_way(class: &ClassSpec, files: &Files) -> io::Result<()> {
    let usual = Plan::built_in(class);
    let cuts = [4, 8, 16, 32, 64].map(|kib| Chunking::min_cdc(kib * KIB)).into_iter();
    let cuts = cuts.chain([8, 16, 64].map(|kib| Chunking::cdc(kib * KIB)));
    let cuts = cuts.chain([4, 8, 16].map(|kib| Chunking::Fixed { bytes: kib * KIB }));
    let groups = [64, 128, 256, 512, 1024];
    let mut plans: Vec<Plan> = vec![usual];
    plans.extend(cuts.map(|chunking| Plan { chunking, ..usual }));
    plans.extend(groups.map(|kib| Plan { group_bytes: kib * KIB, ..usual }));
    plans.extend([1, 2].map(|level| Plan { level, ..usual }));
    for plan in plans {
        let sum = files.measure(|id| (id == class.id).then_some(plan))?;
        line(&class.name, Some(plan), &sum);
    }
    Ok(())
}

/// All files, where classes find each other's data.
fn together(classifier: &Classifier, files: &Files) -> io::Result<()> {
    let usual = |id: ClassId| Plan::built_in(classifier.class(id));
    let first: HashMap<ClassId, Chunking> = first_cuts().into_iter().collect();
    let all = |what: &str, plan: &dyn Fn(ClassId) -> Plan| -> io::Result<()> {
        line(what, None, &files.measure(|id| Some(plan(id)))?);
        Ok(())
    };
    let early = |id: ClassId| Plan { chunking: first[&id], group_bytes: 128 * KIB, level: 1 };
    all("all, before cuts had rows", &early)?;
    all("all, built in", &usual)?;
    all("all, level 1", &|id| Plan { level: 1, ..usual(id) })?;
    let fixed = |of: &'static [ClassId], kib: u32| {
        move |id: ClassId| {
            let chunking = Chunking::Fixed { bytes: kib * KIB };
            if of.contains(&id) { Plan { chunking, ..usual(id) } } else { usual(id) }
        }
    };
    all("all, images fixed 16", &fixed(&[IMAGE], 16))?;
    all("all, images fixed 4", &fixed(&[IMAGE], 4))?;
    all("all, databases fixed 4", &fixed(&[DATABASE], 4))
}

fn run(dirs: &[PathBuf], only: Option<&str>) -> io::Result<()> {
    let classifier = Classifier::new(&Config::default()).map_err(io::Error::other)?;
    let files = Files::below(dirs, &classifier)?;
    heading();
    for class in classifier.classes() {
        let wanted = only.is_none_or(|name| name == class.name);
        if wanted && files.0.iter().any(|(_, id)| *id == class.id) {
            each_way(class, &files)?;
        }
    }
    if only.is_none() { together(&classifier, &files) } else { Ok(()) }
}

/// What the tables of a volume take.
#[allow(clippy::cast_precision_loss)]
fn tables(volume: &Path) -> io::Result<()> {
    let kv = RocksKv::open(&volume.join("meta"), &RocksOptions::default());
    let kv = kv.map_err(io::Error::other)?;
    kv.flush().map_err(io::Error::other)?;
    println!(
        "{:12}{:>10}{:>12}{:>10}{:>12}{:>10}",
        "table", "rows", "bytes", "a row", "on disk", "a row"
    );
    for table in Table::ALL {
        let (mut rows, mut bytes) = (0_u64, 0);
        for row in kv.scan(table, &KeyRange::all(), Order::Forward) {
            let (key, value) = row.map_err(io::Error::other)?;
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        let disk = kv.file_bytes(table);
        let each = |bytes: u64| bytes as f64 / rows.max(1) as f64;
        let name = table.name();
        println!(
            "{name:12}{rows:>10}{bytes:>12}{:>10.1}{disk:>12}{:>10.1}",
            each(bytes),
            each(disk)
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, volume] = &args[..]
        && flag == "-t"
    {
        return said(tables(Path::new(volume)));
    }
    let (only, dirs) = match &args[..] {
        [flag, name, dirs @ ..] if flag == "-c" => (Some(name.as_str()), dirs),
        dirs => (None, dirs),
    };
    let dirs: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
    if dirs.is_empty() {
        eprintln!("usage: sizes [-c CLASS] DIR…, or sizes -t VOLUME");
        return ExitCode::from(2);
    }
    said(run(&dirs, only))
}

fn said(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sizes: {error}");
            ExitCode::FAILURE
        }
    }
}
