// A program that copies a namespace and compares it, with Go's standard library alone: SCAN, and for each key COPY and
// two HGETALL in large pipelines, of which two are on their way at a time. Prints the keys copied and the seconds since
// it began to connect, as JSON.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// One reply, as it came, and its elements where it is an array.
type reply struct {
	text     []byte
	elements []reply
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func readReply(in *bufio.Reader) reply {
	line, err := in.ReadSlice('\n')
	check(err)
	kind, rest := line[0], string(line[1:len(line)-2])
	if kind == '-' {
		check(fmt.Errorf("%s", rest))
	}
	if kind != '$' && kind != '*' {
		return reply{text: []byte(rest)}
	}
	count, err := strconv.Atoi(rest)
	check(err)
	if kind == '*' {
		elements := make([]reply, count)
		for i := range elements {
			elements[i] = readReply(in)
		}
		return reply{elements: elements}
	}
	if count < 0 {
		return reply{}
	}
	text := make([]byte, count+2)
	_, err = io.ReadFull(in, text)
	check(err)
	return reply{text: text[:count]}
}

func add(out *bytes.Buffer, words ...string) {
	out.WriteString("*" + strconv.Itoa(len(words)) + "\r\n")
	for _, word := range words {
		out.WriteByte('$')
		out.WriteString(strconv.Itoa(len(word)))
		out.WriteString("\r\n")
		out.WriteString(word)
		out.WriteString("\r\n")
	}
}

// Whether two hashes have the same fields and values, in whatever order.
func equal(source, target []reply) bool {
	if len(source) == 0 || len(source) != len(target) {
		return false
	}
	values := make(map[string][]byte, len(source)/2)
	for i := 0; i < len(source); i += 2 {
		values[string(source[i].text)] = source[i+1].text
	}
	for i := 0; i < len(target); i += 2 {
		value, found := values[string(target[i].text)]
		if !found || !bytes.Equal(value, target[i+1].text) {
			return false
		}
	}
	return true
}

func countCopied(in *bufio.Reader, pairs int) int {
	copied := 0
	for ; pairs > 0; pairs-- {
		made := readReply(in)
		source, target := readReply(in), readReply(in)
		if string(made.text) == "1" && equal(source.elements, target.elements) {
			copied++
		}
	}
	return copied
}

func addScan(out *bytes.Buffer, cursor string) {
	add(out, "SCAN", cursor, "MATCH", "job:*", "COUNT", "1000")
}

func addPair(out *bytes.Buffer, source string) {
	target := "step:" + source[len("job:"):]
	add(out, "COPY", source, target)
	add(out, "HGETALL", source)
	add(out, "HGETALL", target)
}

func send(connection net.Conn, out *bytes.Buffer) {
	_, err := connection.Write(out.Bytes())
	check(err)
	out.Reset()
}

// Sends the commands for one SCAN's names behind the next SCAN, and only then reads the answers to those before.
func copyAll(connection net.Conn) int {
	in := bufio.NewReaderSize(connection, 1<<18)
	var out bytes.Buffer
	addScan(&out, "0")
	send(connection, &out)
	copied, before := 0, 0
	for {
		page := readReply(in).elements
		cursor, names := string(page[0].text), page[1].elements
		if cursor != "0" {
			addScan(&out, cursor)
		}
		for _, name := range names {
			addPair(&out, string(name.text))
		}
		send(connection, &out)
		copied += countCopied(in, before)
		if cursor == "0" {
			return copied + countCopied(in, len(names))
		}
		before = len(names)
	}
}

func main() {
	began := time.Now()
	connection, err := net.Dial("tcp", os.Args[1])
	check(err)
	copied := copyAll(connection)
	fmt.Printf("{\"copied\": %d, \"seconds\": %f}\n", copied, time.Since(began).Seconds())
}
