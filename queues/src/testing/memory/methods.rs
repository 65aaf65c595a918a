//! What the store does for each method of AMQP that this library uses.

use super::{
    exchanges::Target,
    store::{ChannelId, Refused, Settlement, Store},
};
use amq_protocol::frame::AMQPFrame;
use lapin::protocol::{AMQPClass, basic, channel, confirm, exchange, queue};
use tokio::{sync::mpsc::UnboundedSender, time::Instant};

/// # Errors
/// Why the channel is to be closed.
pub(super) fn ask(
    store: &mut Store,
    id: ChannelId,
    class: &AMQPClass,
    outbox: &UnboundedSender<AMQPFrame>,
    now: Instant,
) -> Result<Option<AMQPClass>, Refused> {
    if let AMQPClass::Channel(channel::AMQPMethod::Open(_)) = class {
        store.open(id, outbox.clone());
        return Ok(Some(AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}))));
    }
    if !store.is_open(id) {
        // What was sent before the client learned that its channel is closed.
        return Ok(None);
    }
    let answer = match class {
        AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
            store.close(id, now);
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
        }
        AMQPClass::Confirm(confirm::AMQPMethod::Select(_)) => {
            store.confirm(id);
            AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {}))
        }
        AMQPClass::Exchange(asked) => {
            use exchange::{AMQPMethod, BindOk, DeclareOk, DeleteOk};
            AMQPClass::Exchange(match asked {
                AMQPMethod::Declare(declare) => {
                    store.declare_exchange(declare.exchange.as_str(), declare.kind.as_str(), declare.passive)?;
                    AMQPMethod::DeclareOk(DeclareOk {})
                }
                AMQPMethod::Bind(bind) => {
                    let target = Target::Exchange(bind.destination.to_string());
                    store.exchanges.bind(bind.source.as_str(), bind.routing_key.as_str(), target);
                    AMQPMethod::BindOk(BindOk {})
                }
                AMQPMethod::Delete(delete) => {
                    store.exchanges.delete(delete.exchange.as_str());
                    AMQPMethod::DeleteOk(DeleteOk {})
                }
                _ => return Err(unknown()),
            })
        }
        AMQPClass::Queue(asked) => {
            use queue::{AMQPMethod, BindOk, DeclareOk, DeleteOk, PurgeOk};
            AMQPClass::Queue(match asked {
                AMQPMethod::Declare(declare) => {
                    let name = declare.queue.as_str();
                    store.declare_queue(name, declare.passive, &declare.arguments)?;
                    let (message_count, consumer_count) = store.counts(name);
                    AMQPMethod::DeclareOk(DeclareOk { queue: name.into(), message_count, consumer_count })
                }
                AMQPMethod::Bind(bind) => {
                    let target = Target::Queue(bind.queue.to_string());
                    store.exchanges.bind(bind.exchange.as_str(), bind.routing_key.as_str(), target);
                    AMQPMethod::BindOk(BindOk {})
                }
                AMQPMethod::Delete(delete) => {
                    let (message_count, _) = store.counts(delete.queue.as_str());
                    store.delete_queue(delete.queue.as_str());
                    AMQPMethod::DeleteOk(DeleteOk { message_count })
                }
                AMQPMethod::Purge(purge) => {
                    let (message_count, _) = store.counts(purge.queue.as_str());
                    if let Some(queue) = store.queues.get_mut(purge.queue.as_str()) {
                        queue.ready.clear();
                    }
                    AMQPMethod::PurgeOk(PurgeOk { message_count })
                }
                _ => return Err(unknown()),
            })
        }
        AMQPClass::Basic(asked) => {
            use basic::{AMQPMethod, CancelOk, ConsumeOk, GetEmpty, QosOk};
            AMQPClass::Basic(match asked {
                AMQPMethod::Qos(qos) => {
                    store.set_prefetch(id, qos.prefetch_count);
                    AMQPMethod::QosOk(QosOk {})
                }
                AMQPMethod::Consume(consume) => {
                    let tag = match consume.consumer_tag.as_str() {
                        "" => format!("consumer-{}", uuid::Uuid::now_v7()),
                        tag => tag.to_owned(),
                    };
                    store.consume(id, consume.queue.as_str(), &tag)?;
                    AMQPMethod::ConsumeOk(ConsumeOk { consumer_tag: tag.as_str().into() })
                }
                AMQPMethod::Cancel(cancel) => {
                    store.cancel(id, cancel.consumer_tag.as_str());
                    if cancel.nowait {
                        return Ok(None);
                    }
                    AMQPMethod::CancelOk(CancelOk { consumer_tag: cancel.consumer_tag.clone() })
                }
                AMQPMethod::Get(get) => match store.get(id, get.queue.as_str())? {
                    Some(frames) => {
                        store.send(id, frames);
                        return Ok(None);
                    }
                    None => AMQPMethod::GetEmpty(GetEmpty {}),
                },
                AMQPMethod::Ack(ack) => {
                    store.settle(id, ack.delivery_tag, ack.multiple, Settlement::Ack, now)?;
                    return Ok(None);
                }
                AMQPMethod::Nack(nack) => {
                    let settlement = if nack.requeue { Settlement::GiveBack } else { Settlement::Reject };
                    store.settle(id, nack.delivery_tag, nack.multiple, settlement, now)?;
                    return Ok(None);
                }
                AMQPMethod::Reject(reject) => {
                    let settlement = if reject.requeue { Settlement::GiveBack } else { Settlement::Reject };
                    store.settle(id, reject.delivery_tag, false, settlement, now)?;
                    return Ok(None);
                }
                AMQPMethod::CancelOk(_) => return Ok(None),
                _ => return Err(unknown()),
            })
        }
        _ => return Ok(None),
    };
    Ok(Some(answer))
}

fn unknown() -> Refused {
    Refused { code: 540, text: "NOT_IMPLEMENTED - the broker in memory does not know this".to_owned() }
}
