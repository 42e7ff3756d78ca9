package main

import (
	"context"
	"database/sql"
	"log"

	_ "github.com/mattn/go-sqlite3"
)

const (
	maxGroup = 512
	schema   = `CREATE TABLE batches (
		seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, height INTEGER NOT NULL, numbers BLOB NOT NULL)`
	insert = `INSERT INTO batches (id, height, numbers) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING`
)

// Row is a batch that is kept, and the message that brought it.
type Row struct {
	MessageID string
	Height    int64
	ID        []byte
	Numbers   []byte
}

// Store keeps rows in SQLite: all that wait go into one commit.
type Store struct {
	ctx        context.Context
	connection *sql.Conn
	insert     *sql.Stmt
}

// Open makes a new database, with the durability that dapi has: each commit is on disk when it returns.
func Open(ctx context.Context, path string) (*Store, error) {
	database, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=FULL")
	if err != nil {
		return nil, err
	}
	connection, err := database.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := connection.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	statement, err := connection.PrepareContext(ctx, insert)
	if err != nil {
		return nil, err
	}
	return &Store{ctx, connection, statement}, nil
}

// Start keeps what the returned function is given, and calls acknowledge when it is on disk. An error ends the program.
func (store *Store) Start(acknowledge func(id string) error) func(Row) error {
	waiting := make(chan Row, maxGroup)
	go func() {
		group := make([]Row, 0, maxGroup)
		for row := range waiting {
			group = append(group[:0], row)
			for len(group) < maxGroup && len(waiting) > 0 {
				group = append(group, <-waiting)
			}
			if err := store.commit(group); err != nil {
				log.Fatal(err)
			}
			for _, each := range group {
				if err := acknowledge(each.MessageID); err != nil {
					log.Fatal(err)
				}
			}
		}
	}()
	return func(row Row) error {
		waiting <- row
		return nil
	}
}

func (store *Store) commit(group []Row) error {
	if _, err := store.connection.ExecContext(store.ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, row := range group {
		if _, err := store.insert.ExecContext(store.ctx, row.ID, row.Height, row.Numbers); err != nil {
			return err
		}
	}
	_, err := store.connection.ExecContext(store.ctx, "COMMIT")
	return err
}
