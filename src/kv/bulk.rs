//! Filling whole tables in key order, past the log and the memtables.
//!
//! For tables that are made anew as a whole. Guarantees: a table gets all of its rows or none, and
//! they are durable on return. Where rows were there before, the files are merged with them at
//! once: RocksDB would take them for so many flushes, and the next commits would pay for merging
//! them. Does not: make several tables one change.

use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::Table;
use super::rocks::{RocksKv, failed, table_options};
use crate::error::{Error, Result};

/// RocksDB's own size of a table file.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Takes the next row of a table.
pub type RowSink<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<()> + 'a;

impl RocksKv {
    /// Adds the rows that `fill` hands over, in rising key order for each of `tables`. Rows that
    /// are there already are replaced.
    ///
    /// # Errors
    /// What `fill` says; `Kv`, also for keys out of order; `Invalid` for a table not named.
    pub fn load_sorted(
        &self,
        tables: &[Table],
        fill: impl FnOnce(&mut RowSink<'_>) -> Result<()>,
    ) -> Result<()> {
        let options: Vec<Options> =
            tables.iter().map(|table| table_options(*table, self.cache())).collect();
        let mut loads: Vec<Load<'_>> =
            tables.iter().zip(&options).map(|(t, o)| Load::new(*t, o, self.dir())).collect();
        fill(&mut |table, key, value| {
            let load = loads.iter_mut().find(|load| load.table == table);
            load.ok_or_else(|| Error::invalid("A row of a table that is not loaded"))?
                .put(key, value)
        })?;
        for mut load in loads {
            load.end_file()?;
            let mut how = IngestExternalFileOptions::default();
            how.set_move_files(true);
            let files = std::mem::take(&mut load.files);
            if !files.is_empty() {
                self.ingest(load.table, &how, files)?;
            }
        }
        Ok(())
    }
}

/// Files of one table on their way into the database; those left over are removed.
struct Load<'a> {
    table: Table,
    options: &'a Options,
    dir: &'a Path,
    writer: Option<SstFileWriter<'a>>,
    files: Vec<PathBuf>,
}

impl<'a> Load<'a> {
    fn new(table: Table, options: &'a Options, dir: &'a Path) -> Self {
        Self { table, options, dir, writer: None, files: Vec::new() }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.file_size() >= FILE_BYTES) {
            self.end_file()?;
        }
        let why = failed("load", self.table);
        let writer = if let Some(writer) = &mut self.writer {
            writer
        } else {
            let name = format!("load-{}-{}.tmp", self.table.name(), self.files.len());
            let path = self.dir.join(name);
            let writer = SstFileWriter::create(self.options);
            writer.open(&path).map_err(&why)?;
            self.files.push(path);
            self.writer.insert(writer)
        };
        writer.put(key, value).map_err(why)
    }

    fn end_file(&mut self) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(failed("load", self.table))
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        for file in &self.files {
            // Best effort: RocksDB ignores the name.
            let _ = std::fs::remove_file(file);
        }
    }
}
