//! A file over one TCP connection, handed to the kernel 64 KiB at a time, as a backup or a copy is.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Bytes of one write.
const WRITE: usize = 64 * 1024;
/// How long a receiver may take to listen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends `file` to a receiver and waits until it has taken everything.
///
/// # Errors
/// Where nobody listens within 15 s, or the connection breaks.
pub fn send(to: SocketAddr, file: &Path) -> Result<()> {
    let mut from = File::open(file).with_context(|| file.display().to_string())?;
    let mut stream = connect(to)?;
    let mut buffer = vec![0; WRITE];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => stream.write_all(&buffer[..n])?,
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // The receiver says nothing; it closes when it has everything.
    stream.read_to_end(&mut buffer)?;
    Ok(())
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(e) if Instant::now() > give_up => {
                return Err(e).with_context(|| format!("connecting to {to}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Takes one connection on `port` of both families and writes what comes to `file`.
///
/// # Errors
/// Where the port is taken, or the connection breaks.
pub fn receive(port: u16, file: &Path) -> Result<()> {
    take(&TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?, file)
}

fn take(listener: &TcpListener, file: &Path) -> Result<()> {
    let mut to = File::create(file).with_context(|| file.display().to_string())?;
    let (mut stream, _) = listener.accept()?;
    std::io::copy(&mut stream, &mut to)?;
    Ok(to.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_arrives_as_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 31 + i / 256) as u8).collect();
        std::fs::write(&from, &bytes).unwrap();
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = std::thread::spawn(move || take(&listener, &to).map(|()| std::fs::read(&to).unwrap()));
        send(([127, 0, 0, 1], port).into(), &from).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), bytes);
    }
}
