//! A connection pooler between Clawback and PostgreSQL, which drops what sessions need, is refused by name.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Backend, Db, clawback, settings};

/// What a pooler does with the settings that a session begins with.
#[derive(Clone, Copy)]
enum Pooler {
    /// PgBouncer with `ignore_startup_parameters = options`.
    Drops,
    /// PgBouncer as it is.
    Refuses,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_between_is_refused_by_name() {
    let db = Db::create(Backend::Postgres).await;
    let through = async |pooler| {
        let mut url = url::Url::parse(&db.url).unwrap();
        url.set_port(Some(start(pooler, url.port().unwrap()).await)).unwrap();
        url.set_query(Some("sslmode=disable"));
        clawback(&["migrate", "status"], &settings(&[("DATABASE_URL", url.as_str())])).await
    };
    let dropped = through(Pooler::Drops).await;
    let says = "lock_timeout must be 10s in our sessions (got 0); a connection pooler like PgBouncer in between drops what \
        sessions need (settings, prepared statements, LISTEN): DATABASE_URL must name PostgreSQL itself";
    assert!(dropped.code == 1 && dropped.stderr.contains(says), "{dropped:?}");
    let refused = through(Pooler::Refuses).await;
    assert!(refused.code == 1 && refused.stderr.contains("a connection pooler like PgBouncer"), "{refused:?}");
    assert!(refused.stderr.contains("unsupported startup parameter: options"), "{refused:?}");
    db.give_back().await;
}

/// Listens, and passes on to PostgreSQL's port what it lets by. Returns its own port.
async fn start(pooler: Pooler, postgres: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut startup = vec![0; usize::try_from(client.read_u32().await.unwrap()).unwrap() - 4];
                client.read_exact(&mut startup).await.unwrap();
                if matches!(pooler, Pooler::Refuses) {
                    let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
                    client.write_u8(b'E').await.unwrap();
                    client.write_u32(u32::try_from(fields.len()).unwrap() + 4).await.unwrap();
                    return client.write_all(fields).await.unwrap();
                }
                let startup = without_options(&startup);
                let mut server = TcpStream::connect(("127.0.0.1", postgres)).await.unwrap();
                server.write_u32(u32::try_from(startup.len()).unwrap() + 4).await.unwrap();
                server.write_all(&startup).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// The protocol's version, then names and values, each ended by a zero byte.
fn without_options(startup: &[u8]) -> Vec<u8> {
    let (version, fields) = startup.split_at(4);
    let fields: Vec<&[u8]> = fields.split(|byte| *byte == 0).collect();
    let kept = fields.chunks(2).filter(|field| field.len() == 2 && !field[0].is_empty() && field[0] != b"options");
    let mut startup = version.to_vec();
    kept.flatten().for_each(|text| startup.extend([text, &[0][..]].concat()));
    startup.push(0);
    startup
}
