//! Writes the fuzz targets' seeds, a file a frame, into each directory that is named.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    for dir in env::args_os().skip(1).map(PathBuf::from) {
        fs::create_dir_all(&dir)?;
        for (i, seed) in godwit_testkit::fuzzing::seeds().iter().enumerate() {
            fs::write(dir.join(format!("seed-{i:03}")), seed)?;
        }
    }
    Ok(())
}
