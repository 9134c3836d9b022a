//! The connection.

use super::super::spec::flag::{ADMIN, ALLOW_BUSY, FAST, LOADING, NO_AUTH, NOSCRIPT, STALE};
use super::super::{CommandSpec, Connection, Group, Handler, category};

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(160, "ping", -1, Group::Connection, Handler::Connection(Connection::Ping))
        .flags(FAST)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("1.0.0", "O(1)", "[message]", "Answers, to show that the server is there."),
    CommandSpec::new(161, "echo", 2, Group::Connection, Handler::Connection(Connection::Echo))
        .flags(LOADING | STALE | FAST)
        .docs("1.0.0", "O(1)", "message", "Answers its argument."),
    CommandSpec::new(162, "hello", -1, Group::Connection, Handler::Connection(Connection::Hello))
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .docs(
            "6.0.0",
            "O(1)",
            "[protover:integer [AUTH <username password>] [SETNAME clientname]]",
            "Chooses the version of the protocol.",
        ),
    CommandSpec::new(163, "auth", -2, Group::Connection, Handler::Connection(Connection::Auth))
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .docs("1.0.0", "O(1)", "[username] password", "Proves who the client is."),
    CommandSpec::new(164, "select", 2, Group::Connection, Handler::Connection(Connection::Select))
        .flags(LOADING | STALE | FAST)
        .docs("1.0.0", "O(1)", "index", "Chooses the database; there is number 0."),
    CommandSpec::new(165, "quit", -1, Group::Connection, Handler::Connection(Connection::Quit))
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .docs("1.0.0", "O(1)", "", "Closes the connection."),
    CommandSpec::new(166, "reset", 1, Group::Connection, Handler::Connection(Connection::Reset))
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .docs("6.2.0", "O(1)", "", "Brings the connection back to how it began."),
    CommandSpec::new(167, "client", -2, Group::Connection, Handler::Container)
        .without(category::CONNECTION)
        .docs("2.4.0", "Depends on the subcommand.", "", "Manages connections.")
        .subcommands(&[
            CommandSpec::new(168, "client|id", 2, Group::Connection, Handler::Connection(Connection::ClientId))
                .flags(NOSCRIPT | LOADING | STALE)
                .docs("5.0.0", "O(1)", "", "Tells the number of this connection."),
            CommandSpec::new(
                169,
                "client|getname",
                2,
                Group::Connection,
                Handler::Connection(Connection::ClientGetname),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs("2.6.9", "O(1)", "", "Tells the name of this connection."),
            CommandSpec::new(
                170,
                "client|setname",
                3,
                Group::Connection,
                Handler::Connection(Connection::ClientSetname),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs("2.6.9", "O(1)", "connection-name", "Gives this connection a name."),
            CommandSpec::new(
                171,
                "client|setinfo",
                4,
                Group::Connection,
                Handler::Connection(Connection::ClientSetinfo),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs(
                "7.2.0",
                "O(1)",
                "<LIB-NAME libname | LIB-VER libver>",
                "Tells the server which library the client uses.",
            ),
            CommandSpec::new(172, "client|info", 2, Group::Connection, Handler::Connection(Connection::ClientInfo))
                .flags(NOSCRIPT | LOADING | STALE)
                .tips(&["nondeterministic_output"])
                .docs("6.2.0", "O(1)", "", "Describes this connection."),
            CommandSpec::new(173, "client|list", -2, Group::Connection, Handler::Connection(Connection::ClientList))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(&["nondeterministic_output"])
                .docs(
                    "2.4.0",
                    "O(N) in the number of connections",
                    "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID <client-id [client-id ...]>]",
                    "Describes the open connections.",
                ),
            CommandSpec::new(174, "client|kill", -3, Group::Connection, Handler::Connection(Connection::ClientKill))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .docs(
                    "2.4.0",
                    "O(N) in the number of connections",
                    concat!(
                        "<ip:port:string | [ID client-id] [TYPE <NORMAL | MASTER | SLAVE | REPLICA | ",
                        "PUBSUB>] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME yes/no]>"
                    ),
                    "Closes connections.",
                ),
            CommandSpec::new(175, "client|reply", 3, Group::Connection, Handler::Connection(Connection::ClientReply))
                .flags(NOSCRIPT | LOADING | STALE)
                .docs("3.2.0", "O(1)", "<ON | OFF | SKIP>", "Turns the replies of this connection off and on."),
            CommandSpec::new(176, "client|pause", -3, Group::Connection, Handler::Connection(Connection::ClientPause))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .docs("2.9.50", "O(1)", "timeout [WRITE | ALL]", "Holds back commands for a while."),
            CommandSpec::new(
                177,
                "client|unpause",
                2,
                Group::Connection,
                Handler::Connection(Connection::ClientUnpause),
            )
            .flags(ADMIN | NOSCRIPT | LOADING | STALE)
            .docs("6.2.0", "O(N) in the number of held clients", "", "Ends a pause."),
            CommandSpec::new(
                178,
                "client|unblock",
                -3,
                Group::Connection,
                Handler::Connection(Connection::ClientUnblock),
            )
            .flags(ADMIN | NOSCRIPT | LOADING | STALE)
            .docs(
                "5.0.0",
                "O(1)",
                "client-id [TIMEOUT | ERROR]",
                "Wakes a connection that waits in a blocking command.",
            ),
            CommandSpec::new(
                179,
                "client|no-evict",
                3,
                Group::Connection,
                Handler::Connection(Connection::ClientNoEvict),
            )
            .flags(ADMIN | NOSCRIPT | LOADING | STALE)
            .docs(
                "7.0.0",
                "O(1)",
                "<ON | OFF>",
                "Exempts this connection from being closed to save memory.",
            ),
            CommandSpec::new(
                180,
                "client|no-touch",
                3,
                Group::Connection,
                Handler::Connection(Connection::ClientNoTouch),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs("7.2.0", "O(1)", "<ON | OFF>", "Lets this connection read without marking keys as used."),
            CommandSpec::new(
                182,
                "client|getredir",
                2,
                Group::Connection,
                Handler::Connection(Connection::ClientGetredir),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs(
                "6.0.0",
                "O(1)",
                "",
                "Tells where invalidation messages of this connection go; always -1, for nowhere.",
            ),
            CommandSpec::new(
                183,
                "client|trackinginfo",
                2,
                Group::Connection,
                Handler::Connection(Connection::ClientTrackinginfo),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs("6.2.0", "O(1)", "", "Tells the state of tracking on this connection; always off."),
            CommandSpec::new(
                184,
                "client|tracking",
                -3,
                Group::Connection,
                Handler::Connection(Connection::ClientTracking),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs(
                "6.0.0",
                "O(1)",
                "<ON | OFF>",
                "Refuses to turn tracking on: no invalidation messages are sent.",
            ),
            CommandSpec::new(
                185,
                "client|caching",
                3,
                Group::Connection,
                Handler::Connection(Connection::ClientCaching),
            )
            .flags(NOSCRIPT | LOADING | STALE)
            .docs("6.0.0", "O(1)", "<YES | NO>", "Refused, since tracking is never on."),
            CommandSpec::new(181, "client|help", 2, Group::Connection, Handler::Connection(Connection::ClientHelp))
                .flags(LOADING | STALE)
                .docs("5.0.0", "O(1)", "", "Lists the subcommands of CLIENT."),
        ]),
];
