// Encodes the golden pack with query_encoder.onnx and compares each vector with Python's, to the last bit.
//
//	ORT_DYLIB_PATH=libonnxruntime.so go run . query_encoder.onnx PACK [THREADS]
//
// Encoder is the part to copy. It is safe for several goroutines.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	ort "github.com/yalue/onnxruntime_go"
)

// Encoder turns texts into unit vectors in the teacher's space.
type Encoder struct{ session *ort.DynamicAdvancedSession }

// Open loads a fused file. Threads is how many processor threads one call may use.
func Open(model string, threads int) (*Encoder, error) {
	// From 1.29 on, onnxruntime reports to its maker, unless this is set before the library is loaded.
	os.Setenv("ORT_DISABLE_TELEMETRY", "1")
	if !ort.IsInitialized() {
		ort.SetSharedLibraryPath(os.Getenv("ORT_DYLIB_PATH"))
		if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
			return nil, err
		}
	}
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	if err := options.SetIntraOpNumThreads(threads); err != nil {
		return nil, err
	}
	session, err := ort.NewDynamicAdvancedSession(model, []string{"text"}, []string{"embedding"}, options)
	if err != nil {
		return nil, err
	}
	return &Encoder{session}, nil
}

// Encode returns a vector per text. A text's vector does not depend on the others.
func (e *Encoder) Encode(texts []string) ([][]float32, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	exact := make([]string, len(texts))
	for i, text := range texts {
		// Strings pass through C and end at U+0000. The tokenizer drops it and U+FFFD alike.
		exact[i] = strings.ReplaceAll(text, "\x00", "\ufffd")
	}
	input, err := ort.NewStringTensor(ort.NewShape(int64(len(texts))))
	if err != nil {
		return nil, err
	}
	defer input.Destroy()
	if err := input.SetContents(exact); err != nil {
		return nil, err
	}
	outputs := []ort.Value{nil}
	if err := e.session.Run([]ort.Value{input}, outputs); err != nil {
		return nil, err
	}
	defer outputs[0].Destroy()
	numbers := outputs[0].(*ort.Tensor[float32]).GetData()
	dim := len(numbers) / len(texts)
	vectors := make([][]float32, len(texts))
	for i := range vectors { // copied, since Destroy frees the tensor
		vectors[i] = append([]float32(nil), numbers[i*dim:(i+1)*dim]...)
	}
	return vectors, nil
}

// Close frees the model.
func (e *Encoder) Close() error { return e.session.Destroy() }

const batchSize = 32

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: encode query_encoder.onnx PACK [THREADS]"))
	}
	threads := 1
	if len(os.Args) > 3 {
		var err error
		threads, err = strconv.Atoi(os.Args[3])
		fail(err)
	}
	texts, expected, err := readPack(os.Args[2])
	fail(err)
	encoder, err := Open(os.Args[1], threads)
	fail(err)
	defer encoder.Close()

	equal := make([]bool, len(texts))
	var times []float64
	for i, text := range texts {
		start := time.Now()
		vectors, err := encoder.Encode([]string{text})
		times = append(times, float64(time.Since(start).Nanoseconds())/1e6)
		fail(err)
		equal[i] = same(vectors[0], expected[i])
	}
	for start := 0; start < len(texts); start += batchSize {
		end := min(start+batchSize, len(texts))
		vectors, err := encoder.Encode(texts[start:end])
		fail(err)
		for i, vector := range vectors {
			equal[start+i] = equal[start+i] && same(vector, expected[start+i])
		}
	}

	count := 0
	for _, is := range equal {
		if is {
			count++
		}
	}
	sort.Float64s(times)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"texts": len(texts), "equal": count, "p50_ms": times[len(times)/2],
	})
	if count < len(texts) {
		os.Exit(1)
	}
}

func same(one, other []float32) bool {
	if len(one) != len(other) {
		return false
	}
	for i := range one {
		if math.Float32bits(one[i]) != math.Float32bits(other[i]) {
			return false
		}
	}
	return true
}

// readPack reads texts.bin (a count, then each text's length and UTF-8) and vectors.bin (float32); little endian.
func readPack(folder string) ([]string, [][]float32, error) {
	data, err := os.ReadFile(filepath.Join(folder, "texts.bin"))
	if err != nil {
		return nil, nil, err
	}
	texts := make([]string, binary.LittleEndian.Uint32(data))
	data = data[4:]
	for i := range texts {
		size := binary.LittleEndian.Uint32(data)
		texts[i] = string(data[4 : 4+size])
		data = data[4+size:]
	}
	data, err = os.ReadFile(filepath.Join(folder, "vectors.bin"))
	if err != nil {
		return nil, nil, err
	}
	vectors := make([][]float32, len(texts))
	dim := len(data) / 4 / len(texts)
	for i := range vectors {
		vectors[i] = make([]float32, dim)
		for j := range vectors[i] {
			vectors[i][j] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*(i*dim+j):]))
		}
	}
	return texts, vectors, nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "encode:", err)
		os.Exit(2)
	}
}
