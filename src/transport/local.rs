//! A node that is this machine: commands are child processes, ports are sockets.

use std::io;
use std::process::Stdio;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::error::{Reason, TransportError};
use super::names;
use super::process::{
    Exit, ExitFrom, Input, Place, Process, Stderr, StderrFrom, Stdin, Stdout, StdoutFrom, Through, Tunnel,
};

/// Runs `command` with `/bin/sh`, as sshd would with the user's shell.
pub(super) fn exec(place: &Arc<Place>, command: &str) -> Result<Process, TransportError> {
    let fail = |source| place.error(Reason::Local { what: "start the command".to_owned(), source });
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for windlass, which then decides what becomes of a node's commands.
        .process_group(0)
        .spawn()
        .map_err(fail)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(fail(io::Error::other("it has no streams")));
    };
    Ok(Process {
        stdin: Stdin(Input::Local(stdin)),
        stdout: Stdout(StdoutFrom::Local(stdout)),
        stderr: Stderr(StderrFrom::Local(stderr)),
        exit: Exit { place: place.clone(), from: ExitFrom::Local(Box::new(child)) },
    })
}

/// Connects to a port.
pub(super) async fn forward(place: &Place, host: &str, port: u16) -> Result<Tunnel, TransportError> {
    let what = || format!("connect to {host}:{port}");
    let addresses = names::lookup(host, port)
        .await
        .map_err(|source| place.error(Reason::Resolve { host: host.to_owned(), source }))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(Tunnel(Through::Local(stream))),
            Err(error) => last = error,
        }
    }
    Err(place.error(Reason::Local { what: what(), source: last }))
}
