package main

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
)

const (
	rawConnections = 16
	// As it is by default, PostgreSQL would compress the bodies, which takes it most of its time.
	rawSchema = `CREATE TABLE batches (seq BIGSERIAL PRIMARY KEY, id TEXT NOT NULL UNIQUE, body BYTEA NOT NULL);
		ALTER TABLE batches ALTER body SET STORAGE EXTERNAL`
	rawInsert = `INSERT INTO batches (id, body) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`
)

// StartRaw keeps messages in PostgreSQL as they came, without decoding them, over 16 connections with a transaction a
// message, and calls acknowledge when one is committed. An error ends the program.
func StartRaw(ctx context.Context, address string, acknowledge func(id string) error) (func([]byte) error, error) {
	waiting := make(chan []byte)
	for number := range rawConnections {
		connection, err := pgx.Connect(ctx, address)
		if err != nil {
			return nil, err
		}
		if number == 0 {
			if _, err := connection.Exec(ctx, rawSchema); err != nil {
				return nil, err
			}
		}
		go func() {
			for payload := range waiting {
				id, err := idAtEnd(payload)
				if err == nil {
					_, err = connection.Exec(ctx, rawInsert, id, payload)
				}
				if err == nil {
					err = acknowledge(id)
				}
				if err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	return func(payload []byte) error {
		waiting <- payload
		return nil
	}, nil
}

// idAtEnd returns the id of a message that ends with it.
func idAtEnd(payload []byte) (string, error) {
	before, found := bytes.CutSuffix(payload, []byte(`"}`))
	begin := bytes.LastIndexByte(before, '"')
	if !found || begin < 0 {
		return "", fmt.Errorf("a message of %d bytes does not end with its id", len(payload))
	}
	return string(before[begin+1:]), nil
}
