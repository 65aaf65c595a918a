//! Triggers that refuse to change or delete a row of `history`: what happened to money is not rewritten, by whatever
//! program or hand.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261101_000002_history_is_append_only",
    up: Statements::Each { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Statements::Each { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

const SQLITE_UP: &[&str] = &[
    "CREATE TRIGGER history_no_update BEFORE UPDATE ON history
        BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    "CREATE TRIGGER history_no_delete BEFORE DELETE ON history
        BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
];

const SQLITE_DOWN: &[&str] = &["DROP TRIGGER history_no_delete", "DROP TRIGGER history_no_update"];

const POSTGRES_UP: &[&str] = &[
    "CREATE FUNCTION refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'history is append-only'; END $$",
    "CREATE TRIGGER history_append_only BEFORE UPDATE OR DELETE ON history
        FOR EACH ROW EXECUTE FUNCTION refuse_history_change()",
];

const POSTGRES_DOWN: &[&str] =
    &["DROP TRIGGER history_append_only ON history", "DROP FUNCTION refuse_history_change()"];
