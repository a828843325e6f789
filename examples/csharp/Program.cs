// Encodes the golden pack with query_encoder.onnx and compares each vector with Python's, to the last bit.
//
//   dotnet run -- query_encoder.onnx PACK [THREADS]
//
// Not executed where it was written, which has no .NET. Encoder is the part to copy; it is safe for several threads.
using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Microsoft.ML.OnnxRuntime;

if (args.Length < 2)
{
    Console.Error.WriteLine("usage: encode query_encoder.onnx PACK [THREADS]");
    return 2;
}
string[] texts = Pack.ReadTexts(Path.Combine(args[1], "texts.bin"));
float[][] expected = Pack.ReadVectors(Path.Combine(args[1], "vectors.bin"), texts.Length);
using var encoder = new Encoder(args[0], args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : 1);

const int batch = 32;
var equal = new bool[texts.Length];
var times = new double[texts.Length];
for (int i = 0; i < texts.Length; i++)
{
    long start = Stopwatch.GetTimestamp();
    float[][] vectors = encoder.Encode(texts[i..(i + 1)]);
    times[i] = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    equal[i] = Pack.Same(vectors[0], expected[i]);
}
for (int start = 0; start < texts.Length; start += batch)
{
    int end = Math.Min(start + batch, texts.Length);
    float[][] vectors = encoder.Encode(texts[start..end]);
    for (int i = start; i < end; i++) equal[i] &= Pack.Same(vectors[i - start], expected[i]);
}
int count = equal.Count(each => each);
Array.Sort(times);
string p50 = times[times.Length / 2].ToString("0.000", CultureInfo.InvariantCulture);
Console.WriteLine($"{{\"texts\": {texts.Length}, \"equal\": {count}, \"p50_ms\": {p50}}}");
return count == texts.Length ? 0 : 1;

/// <summary>Turns texts into unit vectors in the teacher's space.</summary>
internal sealed class Encoder : IDisposable
{
    private readonly InferenceSession session;

    /// <summary>Loads a fused file. <paramref name="threads"/> is how many processor threads one call may use.</summary>
    public Encoder(string model, int threads)
    {
        // From 1.29 on, onnxruntime reports to its maker, unless this is set before the library is loaded. .NET does not
        // pass it on to native code on Linux and macOS: start the program with ORT_DISABLE_TELEMETRY=1 there.
        Environment.SetEnvironmentVariable("ORT_DISABLE_TELEMETRY", "1");
        OrtEnv.Instance().DisableTelemetryEvents();
        using var options = new SessionOptions { IntraOpNumThreads = threads, InterOpNumThreads = 1 };
        session = new InferenceSession(model, options);
    }

    /// <summary>Returns a vector per text. A text's vector does not depend on the others.</summary>
    public float[][] Encode(string[] texts)
    {
        if (texts.Length == 0) return [];
        using var input = OrtValue.CreateTensorWithEmptyStrings(OrtAllocator.DefaultInstance, [texts.Length]);
        for (int i = 0; i < texts.Length; i++)
        {
            // Strings may pass through C and end at U+0000. The tokenizer drops it and U+FFFD alike.
            input.StringTensorSetElementAt(texts[i].Replace('\0', '\ufffd').AsSpan(), i);
        }
        using var run = new RunOptions();
        using var outputs = session.Run(run, ["text"], [input], ["embedding"]);
        ReadOnlySpan<float> numbers = outputs[0].GetTensorDataAsSpan<float>();
        var vectors = new float[texts.Length][];
        int dim = numbers.Length / texts.Length;
        for (int i = 0; i < vectors.Length; i++) vectors[i] = numbers.Slice(i * dim, dim).ToArray();
        return vectors;
    }

    public void Dispose() => session.Dispose();
}

/// <summary>texts.bin: a count, then each text's length and UTF-8; vectors.bin: float32; little endian.</summary>
internal static class Pack
{
    public static string[] ReadTexts(string path)
    {
        ReadOnlySpan<byte> data = File.ReadAllBytes(path);
        var texts = new string[BinaryPrimitives.ReadInt32LittleEndian(data)];
        data = data[4..];
        for (int i = 0; i < texts.Length; i++)
        {
            int size = BinaryPrimitives.ReadInt32LittleEndian(data);
            texts[i] = Encoding.UTF8.GetString(data.Slice(4, size));
            data = data[(4 + size)..];
        }
        return texts;
    }

    public static float[][] ReadVectors(string path, int count)
    {
        byte[] data = File.ReadAllBytes(path);
        int size = data.Length / count;
        var vectors = new float[count][];
        for (int i = 0; i < count; i++)
        {
            vectors[i] = new float[size / 4];
            Buffer.BlockCopy(data, i * size, vectors[i], 0, size);
        }
        return vectors;
    }

    public static bool Same(float[] one, float[] other) =>
        one.Select(BitConverter.SingleToInt32Bits).SequenceEqual(other.Select(BitConverter.SingleToInt32Bits));
}
