//! Everything that can happen, in every phase of a connection's life: {ok, error, slow, never} × {open, check, use,
//! reset, close}. After each, no place and no caller is lost.
//!
//! A relay in front of a real server reads the client's messages and does it to the first that belongs to the
//! phase.

use std::{io, sync::Arc, time::Duration};

use pools_core::{
    pool::Pool,
    postgres::{Lease, OpenError, PgConfig, PgError, PgPool},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{at, backend_pid, ms, open, ready, secs, settled, settled_with};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Check,
    Use,
    Reset,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Ok,
    Error,
    Slow,
    Never,
}

const SLOW: Duration = Duration::from_millis(50);

/// What is to be done to the next message of a phase; nothing once it was.
type Armed = Arc<Mutex<Option<(Phase, Fault)>>>;

struct Relay {
    port: u16,
    armed: Armed,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (armed, mut tasks) = (Armed::default(), JoinSet::new());
        let shared = Arc::clone(&armed);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let armed = Arc::clone(&shared);
                connections.spawn(async move {
                    // However it ends, both sides are closed.
                    drop(pass(client, server, armed).await);
                });
            }
        });
        Self { port, armed, _tasks: tasks }
    }
}

async fn pass(client: TcpStream, server: u16, armed: Armed) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    let ((from_client, mut to_client), (mut from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        result = requests(from_client, to_server, &armed) => result,
        result = tokio::io::copy(&mut from_server, &mut to_client) => result.map(drop),
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, armed: &Armed) -> io::Result<()> {
    // The one message without a type. A request to cancel looks the same, and is let through.
    let mut header = client.read_u32().await?.to_be_bytes().to_vec();
    let mut kind = b'?';
    loop {
        let length = u32::from_be_bytes(header[header.len() - 4..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        let fault = match phase(kind, &body) {
            Some(phase) => armed.lock().await.take_if(|(wanted, _)| *wanted == phase),
            None => None,
        };
        match fault.map(|(_, fault)| fault) {
            None | Some(Fault::Ok) => {}
            Some(Fault::Slow) => sleep(SLOW).await,
            Some(Fault::Error) => return Err(io::ErrorKind::ConnectionReset.into()),
            // Nothing passes any more, until the client closes.
            Some(Fault::Never) => {
                return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
            }
        }
        server.write_all(&[&header[..], &body].concat()).await?;
        kind = client.read_u8().await?;
        header = [&[kind][..], &client.read_u32().await?.to_be_bytes()].concat();
    }
}

fn phase(kind: u8, body: &[u8]) -> Option<Phase> {
    match kind {
        // Protocol version 3: a start, not a cancel.
        b'?' if body.starts_with(&[0, 3]) => Some(Phase::Open),
        b'Q' if body == b"\0" => Some(Phase::Check),
        b'Q' if body.starts_with(b"ROLLBACK") => Some(Phase::Reset),
        b'P' => Some(Phase::Use),
        b'X' => Some(Phase::Close),
        _ => None,
    }
}

#[tokio::test]
async fn pg_whatever_happens_while_opening_no_place_and_no_caller_is_lost() {
    every_fault(Phase::Open).await;
}

#[tokio::test]
async fn pg_whatever_happens_while_checking_no_place_and_no_caller_is_lost() {
    every_fault(Phase::Check).await;
}

#[tokio::test]
async fn pg_whatever_happens_while_using_no_place_and_no_caller_is_lost() {
    every_fault(Phase::Use).await;
}

#[tokio::test]
async fn pg_whatever_happens_while_resetting_no_place_and_no_caller_is_lost() {
    every_fault(Phase::Reset).await;
}

#[tokio::test]
async fn pg_whatever_happens_while_closing_no_place_and_no_caller_is_lost() {
    every_fault(Phase::Close).await;
}

/// One after the other: what is measured here has limits of a second, and the machine may be busy.
async fn every_fault(phase: Phase) {
    let server = testkit::postgres().await;
    for fault in [Fault::Ok, Fault::Error, Fault::Slow, Fault::Never] {
        let case = timeout(secs(40), one_case(&server, phase, fault));
        case.await.unwrap_or_else(|_| panic!("{phase:?}-{fault:?} hangs"));
    }
}

async fn one_case(server: &testkit::Postgres, phase: Phase, fault: Fault) {
    let case = format!("{phase:?}-{fault:?}");
    let relay = Relay::to(server.port()).await;
    let url = format!("postgres://app:app-password@127.0.0.1:{}/app?sslmode=disable", relay.port);
    let pool = open(PgConfig {
        size: 2,
        overflow: 0,
        connect_timeout: secs(5),
        timeout: secs(20),
        application_name: case.clone(),
        ..at(&url)
    });
    ready(&pool).await;
    let pid = backend_pid(&pool).await;
    // The other place is in use meanwhile, on a connection of its own, so that the case is about one connection.
    let first = pool.acquire().await.unwrap();
    let second = if phase == Phase::Open { None } else { Some(pool.acquire().await.unwrap()) };
    drop(first);
    settled_with(&pool, u32::from(second.is_some())).await;
    let arm = async || *relay.armed.lock().await = Some((phase, fault));

    match phase {
        Phase::Open => {
            let _first = pool.acquire().await.unwrap();
            arm().await;
            let opened = pool.acquire().await;
            match fault {
                Fault::Ok | Fault::Slow => assert!(opened.is_ok(), "{case}: {opened:?}"),
                Fault::Error => assert!(matches!(opened, Err(PgError::Open { .. })), "{case}: {opened:?}"),
                Fault::Never => {
                    let cause = OpenError::TimedOut { after: secs(5) };
                    let error = opened.unwrap_err();
                    assert!(error.reason().contains(&cause.to_string()), "{case}: {}", error.reason());
                }
            }
        }
        Phase::Check => {
            arm().await;
            let checked = pool.acquire().await.unwrap_or_else(|error| panic!("{case}: {}", error.reason()));
            let same = pid_of(&checked).await == pid;
            assert_eq!(same, matches!(fault, Fault::Ok | Fault::Slow), "{case}");
        }
        Phase::Use => {
            let lease = pool.acquire().await.unwrap();
            arm().await;
            let patience = if fault == Fault::Never { ms(200) } else { secs(20) };
            let answer = timeout(patience, lease.query_one("SELECT 7", &[])).await;
            match (fault, answer) {
                (Fault::Ok | Fault::Slow, Ok(Ok(row))) => assert_eq!(row.get::<_, i32>(0), 7),
                (Fault::Error, Ok(Err(PgError::Lost { .. }))) | (Fault::Never, Err(_)) => {}
                (_, answer) => panic!("{case}: {answer:?}"),
            }
        }
        Phase::Reset => {
            let lease = pool.acquire().await.unwrap();
            lease.batch_execute("BEGIN; SELECT 1").await.unwrap();
            arm().await;
            drop(lease);
            let same = backend_pid(&pool).await == pid;
            assert_eq!(same, matches!(fault, Fault::Ok | Fault::Slow), "{case}");
        }
        Phase::Close => {
            let lease = pool.acquire().await.unwrap();
            arm().await;
            lease.invalidate();
            assert_ne!(backend_pid(&pool).await, pid, "{case}");
        }
    }
    assert!(relay.armed.lock().await.is_none(), "{case}: the phase was not gone through");
    drop(second);
    whole(&pool, &case, server).await;
}

/// Nothing is lost: both places can be had at once, the numbers add up, and the end leaves nothing.
async fn whole(pool: &PgPool, case: &str, server: &testkit::Postgres) {
    settled(pool).await;
    let leases = tokio::try_join!(pool.acquire(), pool.acquire());
    let leases = leases.unwrap_or_else(|error| panic!("{case}: {}", error.reason()));
    let stats = pool.stats();
    assert_eq!((stats.checked_in, stats.checked_out, stats.total_connections), (0, 2, 2), "{case}");
    assert!(server.connections(case).await <= 2, "{case}");
    assert_eq!(pool.snapshot().waiting(), 0, "{case}");
    drop(leases);
    settled(pool).await;
    assert!(pool.snapshot().holders.is_empty(), "{case}");
    assert!(pool.drain(Instant::now() + secs(20)).await.cut.is_empty(), "{case}");
    testkit::until_async(secs(20), async || server.connections(case).await == 0).await;
}

async fn pid_of(lease: &Lease) -> i32 {
    lease.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}
