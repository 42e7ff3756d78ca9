// Command client is what dapi's intake is compared with: the same work, in the language of the network's own software.
//
// It connects to the WebSocket of a node, as dapi does, decodes each batch, derives an id from its values, keeps it in
// SQLite, and acknowledges it after the fsync of the commit that it is in. Without -db it keeps nothing, and
// acknowledges each batch at once.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"

	"github.com/coder/websocket"
)

// Batch is a proof batch (docs/protocol/node.md, 'Batches').
type Batch struct {
	PublicKey   string    `json:"public_key"`
	BlockHash   string    `json:"block_hash"`
	BlockHeight int64     `json:"block_height"`
	Nonces      []int64   `json:"nonces"`
	Dist        []float64 `json:"dist"`
	NodeID      int64     `json:"node_id"`
}

// Message is a batch in the envelope of the WebSocket.
type Message struct {
	Type  string `json:"type"`
	Batch Batch  `json:"batch"`
	ID    string `json:"id"`
}

// Ack tells the node that it may drop the batch.
type Ack struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

func main() {
	url := flag.String("url", "", "WebSocket of the node")
	path := flag.String("db", "", "file of the database; without one nothing is kept")
	postgres := flag.String("postgres", "", "PostgreSQL that keeps the messages as they come, in place of all that")
	flag.Parse()
	log.Fatal(run(context.Background(), *url, *path, *postgres))
}

func run(ctx context.Context, url, path, postgres string) error {
	connection, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	connection.SetReadLimit(-1)
	acknowledge := func(id string) error {
		text, err := json.Marshal(Ack{Type: "ack", ID: id})
		if err != nil {
			return err
		}
		return connection.Write(ctx, websocket.MessageText, text)
	}
	if postgres != "" {
		keep, err := StartRaw(ctx, postgres, acknowledge)
		if err != nil {
			return err
		}
		return each(ctx, connection, keep)
	}
	keep := func(row Row) error { return acknowledge(row.MessageID) }
	if path != "" {
		store, err := Open(ctx, path)
		if err != nil {
			return err
		}
		keep = store.Start(acknowledge)
	}
	return each(ctx, connection, func(payload []byte) error {
		var message Message
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		row, err := rowOf(&message)
		if err != nil {
			return err
		}
		return keep(row)
	})
}

// each calls take with each message, until there is an error.
func each(ctx context.Context, connection *websocket.Conn, take func(payload []byte) error) error {
	for {
		_, payload, err := connection.Read(ctx)
		if err != nil {
			return err
		}
		if err := take(payload); err != nil {
			return err
		}
	}
}

// rowOf checks a batch, and returns what is kept of it: its numbers as they lie in memory, under the hash of all values.
func rowOf(message *Message) (Row, error) {
	batch := &message.Batch
	if message.Type != "generated" || len(batch.Nonces) != len(batch.Dist) {
		return Row{}, fmt.Errorf("message %s is no batch with a distance for each nonce", message.ID)
	}
	numbers := make([]byte, 0, 16*len(batch.Nonces))
	for _, nonce := range batch.Nonces {
		numbers = binary.LittleEndian.AppendUint64(numbers, uint64(nonce))
	}
	for _, distance := range batch.Dist {
		if math.IsNaN(distance) || math.IsInf(distance, 0) {
			return Row{}, fmt.Errorf("message %s has a distance that is no number", message.ID)
		}
		numbers = binary.LittleEndian.AppendUint64(numbers, math.Float64bits(distance))
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %d %d ", batch.PublicKey, batch.BlockHash, batch.BlockHeight, batch.NodeID)
	hash.Write(numbers)
	return Row{MessageID: message.ID, Height: batch.BlockHeight, ID: hash.Sum(nil), Numbers: numbers}, nil
}
