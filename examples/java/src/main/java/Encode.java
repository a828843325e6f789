import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Encodes the golden pack with a query_encoder.onnx that takes UTF-8 and compares each vector with Python's, to the last
 * bit.
 *
 * <pre>java -cp target/classes:onnxruntime-1.28.0.jar Encode query_encoder.onnx PACK [THREADS]</pre>
 *
 * <p>onnxruntime's Java strings are "modified UTF-8", in which an emoji is not valid. So the file takes bytes: make it with
 * {@code edgeleaf ship BUNDLE --input utf8 -o COPY}. {@link Encoder} is the part to copy; for more, there is a library in
 * android_demo/edgeleaf.
 */
public final class Encode {
  /** Turns texts into unit vectors in the teacher's space. Safe for several threads. */
  static final class Encoder implements AutoCloseable {
    private static final byte FILLER = (byte) 0xff; // UTF-8 never holds this byte
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;

    /**
     * Loads a fused file.
     *
     * @param threads how many processor threads one call may use
     */
    Encoder(Path model, int threads) throws OrtException {
      // From 1.29 on, also start the program with ORT_DISABLE_TELEMETRY=1: Java cannot set a variable of its process.
      environment.setTelemetry(false);
      try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
        options.setIntraOpNumThreads(threads);
        options.setInterOpNumThreads(1);
        session = environment.createSession(model.toString(), options);
      }
    }

    /** Returns a vector per text. A text's vector does not depend on the others. */
    float[][] encode(List<String> texts) throws OrtException {
      if (texts.isEmpty()) return new float[0][];
      List<byte[]> rows = texts.stream().map(text -> text.getBytes(StandardCharsets.UTF_8)).toList();
      int width = rows.stream().mapToInt(row -> row.length).max().getAsInt();
      ByteBuffer bytes = ByteBuffer.allocateDirect(rows.size() * width);
      for (byte[] row : rows) {
        bytes.put(row);
        for (int i = row.length; i < width; i++) bytes.put(FILLER);
      }
      bytes.rewind();
      long[] shape = {rows.size(), width};
      try (OnnxTensor input = OnnxTensor.createTensor(environment, bytes, shape, OnnxJavaType.UINT8);
          OrtSession.Result outputs = session.run(Map.of("utf8", input))) {
        return (float[][]) outputs.get(0).getValue();
      }
    }

    @Override
    public void close() throws OrtException {
      session.close();
    }
  }

  private static final int BATCH = 32;

  private Encode() {}

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2) {
      System.err.println("usage: Encode query_encoder.onnx PACK [THREADS]");
      System.exit(2);
    }
    Path pack = Path.of(arguments[1]);
    List<String> texts = readTexts(pack.resolve("texts.bin"));
    FloatBuffer numbers = read(pack.resolve("vectors.bin")).asFloatBuffer();
    float[][] expected = new float[texts.size()][numbers.remaining() / texts.size()];
    for (float[] vector : expected) numbers.get(vector);

    boolean[] equal = new boolean[texts.size()];
    double[] times = new double[texts.size()];
    int threads = arguments.length > 2 ? Integer.parseInt(arguments[2]) : 1;
    try (Encoder encoder = new Encoder(Path.of(arguments[0]), threads)) {
      for (int i = 0; i < equal.length; i++) {
        long start = System.nanoTime();
        float[][] vectors = encoder.encode(List.of(texts.get(i)));
        times[i] = (System.nanoTime() - start) / 1e6;
        equal[i] = same(vectors[0], expected[i]);
      }
      for (int start = 0; start < equal.length; start += BATCH) {
        int end = Math.min(start + BATCH, equal.length);
        float[][] vectors = encoder.encode(texts.subList(start, end));
        for (int i = start; i < end; i++) equal[i] &= same(vectors[i - start], expected[i]);
      }
    }

    int count = 0;
    for (boolean is : equal) count += is ? 1 : 0;
    Arrays.sort(times);
    System.out.printf(
        Locale.ROOT,
        "{\"texts\": %d, \"equal\": %d, \"p50_ms\": %.3f}%n",
        equal.length, count, times[times.length / 2]);
    System.exit(count == equal.length ? 0 : 1);
  }

  private static boolean same(float[] one, float[] other) {
    if (one.length != other.length) return false;
    for (int i = 0; i < one.length; i++) {
      if (Float.floatToRawIntBits(one[i]) != Float.floatToRawIntBits(other[i])) return false;
    }
    return true;
  }

  private static ByteBuffer read(Path path) throws Exception {
    return ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Reads a count, then each text's length and UTF-8; little endian. */
  private static List<String> readTexts(Path path) throws Exception {
    ByteBuffer data = read(path);
    int count = data.getInt();
    List<String> texts = new ArrayList<>(count);
    for (int i = 0; i < count; i++) {
      byte[] text = new byte[data.getInt()];
      data.get(text);
      texts.add(new String(text, StandardCharsets.UTF_8));
    }
    return texts;
  }
}
