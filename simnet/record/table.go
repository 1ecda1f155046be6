package record

import (
	"bufio"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// Column is one column of a table.
type Column struct {
	Name     string
	Optional bool // empty when nothing is to be said
	Doc      string
}

// Schema is one table: what it is called, and its columns in order.
type Schema struct {
	Name    string
	Columns []Column
}

// Names of the tables; each is a file of that name.
const (
	Streams   = "streams"
	Circuits  = "circuits"
	Relays    = "relays"
	Links     = "links"
	Consensa  = "consensus"
	csvSuffix = ".csv"
	pqSuffix  = ".parquet"
)

// Schemas are all tables.
func Schemas() []Schema {
	return []Schema{
		{Streams, columns[Stream]()}, {Circuits, columns[Circuit]()}, {Relays, columns[Relay]()},
		{Links, columns[Link]()}, {Consensa, columns[Consensus]()},
	}
}

// columns reads them from the tags of a row's fields.
func columns[T any]() []Column {
	row := reflect.TypeFor[T]()
	list := make([]Column, row.NumField())
	for i := range list {
		name, rest, _ := strings.Cut(row.Field(i).Tag.Get("parquet"), ",")
		list[i] = Column{Name: name, Optional: rest == "optional", Doc: row.Field(i).Tag.Get("doc")}
	}
	return list
}

// table writes rows to a CSV file, and to a Parquet file beside it if wanted. The first error stays.
type table[T any] struct {
	name    string
	columns []Column
	rows    int64
	err     error

	file   *os.File
	out    *bufio.Writer
	digest hash.Hash
	csv    *csv.Writer
	record []string

	pqFile *os.File
	pq     *parquet.GenericWriter[T]
	batch  []T
}

const (
	batchRows = 512
	groupRows = 32 << 10 // of a Parquet file, which are in memory until they are written
)

func newTable[T any](dir, name string, format Format) (*table[T], error) {
	t := &table[T]{name: name, columns: columns[T](), digest: sha256.New()}
	var err error
	if t.file, err = os.Create(filepath.Join(dir, name+csvSuffix)); err != nil {
		return nil, err
	}
	t.out = bufio.NewWriterSize(io.MultiWriter(t.file, t.digest), 64<<10)
	t.csv = csv.NewWriter(t.out)
	t.record = make([]string, len(t.columns))
	for i, c := range t.columns {
		t.record[i] = c.Name
	}
	t.err = t.csv.Write(t.record)
	if format == CSV {
		return t, nil
	}
	if t.pqFile, err = os.Create(filepath.Join(dir, name+pqSuffix)); err != nil {
		_ = t.file.Close()
		return nil, err
	}
	t.pq = parquet.NewGenericWriter[T](t.pqFile, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(groupRows),
		parquet.CreatedBy("cepa", "1", ""))
	t.batch = make([]T, 0, batchRows)
	return t, nil
}

// add adds a row.
func (t *table[T]) add(row *T) {
	if t.err != nil {
		return
	}
	t.rows++
	v := reflect.ValueOf(row).Elem()
	for i := range t.record {
		t.record[i] = text(v.Field(i), t.columns[i].Optional)
	}
	if t.err = t.csv.Write(t.record); t.err != nil || t.pq == nil {
		return
	}
	if t.batch = append(t.batch, *row); len(t.batch) == batchRows {
		t.flushBatch()
	}
}

func (t *table[T]) flushBatch() {
	if t.err == nil && len(t.batch) > 0 {
		_, t.err = t.pq.Write(t.batch)
	}
	clear(t.batch)
	t.batch = t.batch[:0]
}

// text is a value as CSV has it.
func text(v reflect.Value, optional bool) string {
	switch {
	case optional && v.IsZero():
		return ""
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	default:
		return v.String()
	}
}

// close writes what is left.
func (t *table[T]) close() error {
	t.csv.Flush()
	errs := []error{t.err, t.csv.Error(), t.out.Flush(), t.file.Close()}
	if t.pq != nil {
		t.flushBatch()
		errs = append(errs, t.err, t.pq.Close(), t.pqFile.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("writing the table %s: %w", t.name, err)
	}
	return nil
}

// info is what the manifest says of the table, once it is closed.
func (t *table[T]) info() Table {
	x := Table{Name: t.name, Rows: t.rows, CSV: t.name + csvSuffix, SHA256: hex.EncodeToString(t.digest.Sum(nil))}
	if t.pq != nil {
		x.Parquet = t.name + pqSuffix
	}
	return x
}
