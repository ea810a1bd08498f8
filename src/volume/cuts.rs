//! How a volume cuts the files of the built-in classes: row `cuts` of table `super`.
//!
//! Data finds its duplicates only if it is cut as it was before, so a volume keeps the cuts it was
//! made with, whatever newer programs give to new volumes; only its configuration overrides them.
//! Volumes without the row were made before there was one.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::Path;

use super::open::{load_config, tolerate};
use crate::config::{Chunking, Config, Cuts, first_cuts, new_cuts};
use crate::cursor::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::kv::{Batch, Kv, Table};
use crate::limits::{CHUNK_BYTES_MAX, CLASSES_MAX};
use crate::types::ClassId;

/// Name of the row.
const ROW: &[u8] = b"cuts";

/// Tag of a way to cut; on disk.
const FIXED: u8 = 0;
const CDC: u8 = 1;
const MIN_CDC: u8 = 2;

/// Puts down how new volumes cut.
pub(super) fn record(batch: &mut Batch) {
    batch.put(Table::Super, ROW, encode(&new_cuts()));
}

/// The configuration of the volume in `dir` over the cuts that it records. `config` is the one
/// over those of new volumes, and stays where reading needs no more than that.
///
/// # Errors
/// `Corrupt`, or `Unknown` for a way to cut that a newer program made; what loading says.
pub(super) fn over_recorded(
    config: Config,
    (dir, kv): (&Path, &dyn Kv),
    read_only: bool,
    met: &mut Vec<String>,
) -> Result<Config> {
    let cuts = match kv.get(Table::Super, ROW)?.map(|row| decode(&row)) {
        Some(Ok(cuts)) => cuts,
        Some(Err(flaw)) => return tolerate(flaw, read_only, met).map(|()| config),
        None => first_cuts(),
    };
    if cuts == new_cuts() { Ok(config) } else { load_config(dir, &cuts) }
}

/// Per class its id, the tag, and the average or the fixed length.
fn encode(cuts: &Cuts) -> Vec<u8> {
    let mut out = Vec::new();
    for (class, chunking) in cuts {
        let tag = match chunking {
            Chunking::Fixed { .. } => FIXED,
            Chunking::Cdc { .. } => CDC,
            Chunking::MinCdc { .. } => MIN_CDC,
        };
        out.extend_from_slice(&[class.0, tag]);
        put_varint(&mut out, u64::from(chunking.nominal()));
    }
    out
}

fn decode(row: &[u8]) -> Result<Cuts> {
    let damaged = || {
        let way_out = "it does not read; mount with -o ro to copy out what is there";
        Error::corrupt("row cuts of table super", way_out)
    };
    let mut reader = Reader::new(row);
    let mut cuts = Cuts::new();
    while !reader.is_empty() {
        let class = reader.u8().filter(|id| usize::from(*id) < CLASSES_MAX).ok_or_else(damaged)?;
        let tag = reader.u8().ok_or_else(damaged)?;
        let bytes = reader.varint_u32().ok_or_else(damaged)?;
        if !bytes.is_power_of_two() || !(1024..=CHUNK_BYTES_MAX).contains(&bytes) {
            return Err(damaged());
        }
        let chunking = match tag {
            FIXED => Chunking::Fixed { bytes },
            CDC if bytes <= CHUNK_BYTES_MAX / 4 => Chunking::cdc(bytes),
            MIN_CDC if bytes <= CHUNK_BYTES_MAX / 2 => Chunking::min_cdc(bytes),
            CDC | MIN_CDC => return Err(damaged()),
            _ => {
                let what = format!("The volume cuts class {class} in way {tag}");
                return Err(Error::Unknown {
                    what: format!("{what}, which this program does not know; use a newer one"),
                });
            }
        };
        cuts.push((ClassId(class), chunking));
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_fixed() {
        let cuts = vec![
            (ClassId(0), Chunking::Fixed { bytes: 4096 }),
            (ClassId(3), Chunking::cdc(16384)),
            (ClassId(9), Chunking::min_cdc(65536)),
        ];
        let golden = b"\x00\x00\x80\x20\x03\x01\x80\x80\x01\x09\x02\x80\x80\x04";
        assert_eq!(encode(&cuts), golden);
        assert_eq!(decode(golden).unwrap(), cuts);
        for cuts in [new_cuts(), first_cuts()] {
            assert_eq!(decode(&encode(&cuts)).unwrap(), cuts);
        }
    }

    #[test]
    fn foreign_rows_are_refused() {
        assert_eq!(decode(b"").unwrap(), []);
        assert!(matches!(decode(b"\x00\x03\x80\x20"), Err(Error::Unknown { .. })));
        // Cut short; no such class; no power of two; too small; too large for its way to cut.
        let bad: [&[u8]; 7] = [
            b"\x00",
            b"\x00\x00",
            b"\x40\x00\x80\x20",
            b"\x00\x00\x81\x20",
            b"\x00\x00\x40",
            b"\x00\x01\x80\x80\x20",
            b"\x00\x02\x80\x80\x40",
        ];
        for row in bad {
            assert!(matches!(decode(row), Err(Error::Corrupt { .. })), "{row:?}");
        }
    }
}
