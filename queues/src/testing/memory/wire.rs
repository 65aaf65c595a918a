//! One connection: reads frames, asks the store, writes what it has to say.

use super::{
    Shared,
    methods::ask,
    store::{ChannelId, Refused, Store, method},
};
use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use lapin::{
    BasicProperties,
    protocol::{AMQPClass, basic, channel, connection},
    types::{AMQPValue, FieldTable},
};
use std::{collections::HashMap, io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::Instant,
};

/// As RabbitMQ's.
const FRAME_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2047;

pub(super) async fn serve(stream: TcpStream, connection: u64, shared: Arc<Shared>) {
    // Small answers, one after the other.
    let _ = stream.set_nodelay(true);
    let (from, to) = stream.into_split();
    let (outbox, frames) = mpsc::unbounded_channel();
    let peer = Peer { connection, shared, outbox, contents: HashMap::new() };
    // An error is the end of the connection. The writer ends when the reader's last outbox is gone.
    let _ = tokio::join!(peer.read(from), write(to, frames));
}

async fn write(mut to: OwnedWriteHalf, mut frames: UnboundedReceiver<AMQPFrame>) -> io::Result<()> {
    let mut batch = Vec::new();
    while frames.recv_many(&mut batch, 100).await > 0 {
        let mut bytes = WriteContext::from(Vec::new());
        for frame in batch.drain(..) {
            bytes = gen_frame(&frame)(bytes).map_err(io::Error::other)?;
        }
        to.write_all(&bytes.write).await?;
    }
    Ok(())
}

struct Peer {
    connection: u64,
    shared: Arc<Shared>,
    outbox: UnboundedSender<AMQPFrame>,
    /// Of each channel the message that is being read.
    contents: HashMap<u16, Content>,
}

struct Content {
    publish: basic::Publish,
    properties: BasicProperties,
    missing: u64,
    payload: Vec<u8>,
}

impl Peer {
    async fn read(mut self, mut from: OwnedReadHalf) -> io::Result<()> {
        let read = self.read_all(&mut from).await;
        let mut state = self.shared.state();
        let now = state.now();
        state.store.close_all(self.connection, now);
        state.store.serve_all();
        read
    }

    async fn read_all(&mut self, from: &mut OwnedReadHalf) -> io::Result<()> {
        from.read_exact(&mut [0; 8]).await?;
        self.tell(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties(),
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        }));
        loop {
            let mut bytes = vec![0; 7];
            from.read_exact(&mut bytes).await?;
            let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
            if size > FRAME_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            bytes.resize(7 + usize::try_from(size).unwrap_or_default() + 1, 0);
            from.read_exact(&mut bytes[7..]).await?;
            let (_, frame) = parse_frame(bytes.as_slice()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            match frame {
                AMQPFrame::Method(0, AMQPClass::Connection(method)) => {
                    let is_last = matches!(method, connection::AMQPMethod::Close(_));
                    self.connection(&method);
                    if is_last {
                        return Ok(());
                    }
                }
                AMQPFrame::Method(channel, class) => self.answer(channel, class),
                AMQPFrame::Header(channel, header) => {
                    if let Some(content) = self.contents.get_mut(&channel) {
                        (content.missing, content.properties) = (header.body_size, header.properties);
                    }
                    self.publish_whole(channel);
                }
                AMQPFrame::Body(channel, bytes) => {
                    if let Some(content) = self.contents.get_mut(&channel) {
                        content.missing = content.missing.saturating_sub(bytes.len() as u64);
                        content.payload.extend(bytes);
                    }
                    self.publish_whole(channel);
                }
                AMQPFrame::Heartbeat | AMQPFrame::InvalidHeartbeat(_) | AMQPFrame::ProtocolHeader(_) => {}
            }
        }
    }

    fn tell(&self, method: connection::AMQPMethod) {
        let _ = self.outbox.send(AMQPFrame::Method(0, AMQPClass::Connection(method)));
    }

    fn connection(&self, method: &connection::AMQPMethod) {
        use connection::{AMQPMethod, CloseOk, OpenOk, Tune};
        match method {
            AMQPMethod::StartOk(_) => {
                self.tell(AMQPMethod::Tune(Tune { channel_max: CHANNEL_MAX, frame_max: FRAME_MAX, heartbeat: 0 }));
            }
            AMQPMethod::Open(_) => self.tell(AMQPMethod::OpenOk(OpenOk {})),
            AMQPMethod::Close(_) => self.tell(AMQPMethod::CloseOk(CloseOk {})),
            _ => {}
        }
    }

    fn answer(&mut self, number: u16, class: AMQPClass) {
        let id = (self.connection, number);
        if let AMQPClass::Basic(basic::AMQPMethod::Publish(publish)) = class {
            let properties = BasicProperties::default();
            self.contents.insert(number, Content { publish, properties, missing: 0, payload: Vec::new() });
            return;
        }
        self.settle(id, |store, now| ask(store, id, &class, &self.outbox, now));
    }

    /// Publishes the channel's message when all of it has come.
    fn publish_whole(&mut self, number: u16) {
        let id = (self.connection, number);
        let Some(content) = self.contents.remove(&number) else { return };
        if content.missing > 0 {
            self.contents.insert(number, content);
            return;
        }
        let Content { publish, properties, payload, .. } = content;
        self.settle(id, |store, now| match store.is_open(id) {
            true => store.publish(id, &publish, (properties, payload), now).map(|()| None),
            false => Ok(None),
        });
    }

    /// Sends the answer, or closes the channel; then consumers are served, behind the answer: it may tell who they are.
    fn settle(&self, id: ChannelId, ask: impl FnOnce(&mut Store, Instant) -> Result<Option<AMQPClass>, Refused>) {
        let mut state = self.shared.state();
        let now = state.now();
        let store = &mut state.store;
        match ask(store, now) {
            Ok(Some(class)) => _ = self.outbox.send(method(id, class)),
            Ok(None) => {}
            Err(Refused { code, text }) => {
                let (reply_code, reply_text) = (code, text.as_str().into());
                let close = channel::Close { reply_code, reply_text, class_id: 0, method_id: 0 };
                let _ = self.outbox.send(method(id, AMQPClass::Channel(channel::AMQPMethod::Close(close))));
                store.close(id, now);
            }
        }
        store.serve_all();
        self.shared.changed.notify_waiters();
    }
}

/// What a client may ask for.
fn properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("queues::testing::MemoryBroker".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}
