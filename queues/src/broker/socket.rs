//! The TCP connection under an AMQP connection that is being made, so that it can be ended from outside: a peer that accepts
//! and then says nothing would hold lapin's thread, and the socket, for ever. Used by `connection` alone. Once the AMQP
//! connection is there it has nothing to do with it.

use lapin::{
    AsyncTcpStream,
    tcp::{AMQPUriTcpExt, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
