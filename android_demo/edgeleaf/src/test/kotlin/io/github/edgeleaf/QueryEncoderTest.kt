package io.github.edgeleaf

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption
import java.util.concurrent.Callable
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
import kotlin.math.sqrt
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class QueryEncoderTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val encoder = Fixtures.encoder
    private val golden = Fixtures.lines("pack/golden.jsonl").filter { "text" in it }.toList()
    private val goldenTexts = golden.map { it["text"] as String }

    @Test
    fun `golden texts alone have Python's vectors to the last bit`() {
        val found = goldenTexts.map { encoder.encode(it) }
        assertEquals("numbers that differ", 0, differences(found, Fixtures.matrix("golden.npy")))
    }

    @Test
    fun `golden texts in one call have Python's vectors to the last bit`() {
        assertEquals("numbers that differ", 0, differences(encoder.encode(goldenTexts), Fixtures.matrix("golden.npy")))
    }

    @Test
    fun `golden texts have the vectors of the pack`() {
        for ((entry, vector) in golden.zip(encoder.encode(goldenTexts))) {
            val expected = (entry["embedding"] as List<*>).map { (it as Number).toDouble() }
            val product = expected.indices.sumOf { expected[it] * vector[it] }
            val cosine = product / sqrt(expected.sumOf { it * it } * vector.sumOf { it.toDouble() * it })
            assertTrue("${shown(entry["text"])}: cosine $cosine", cosine > 0.9999)
        }
    }

    @Test
    fun `hard texts alone and together have Python's vectors to the last bit`() {
        val texts = Fixtures.lines("texts.jsonl").map { it["text"] as String }.toList()
        val expected = Fixtures.matrix("texts.npy")
        assertTrue("" in texts && "\u0000" in texts && texts.any { it.length == 10_000 })
        assertEquals("alone", 0, differences(texts.map { encoder.encode(it) }, expected))
        assertEquals("together", 0, differences(encoder.encode(texts), expected))
    }

    @Test
    fun `vectors have unit norm and the space's width`() {
        for (vector in encoder.encode(goldenTexts)) {
            assertEquals(encoder.space.dim, vector.size)
            assertEquals(1.0, sqrt(vector.sumOf { it.toDouble() * it }), 1e-6)
        }
    }

    @Test
    fun `no texts give no vectors`() {
        assertEquals(emptyList<FloatArray>(), encoder.encode(emptyList()))
    }

    @Test
    fun `token ids of the parity sets equal those of tokenizers`() {
        val sets = checkNotNull(Fixtures.file("pack/parity").listFiles()).sorted()
        assertTrue("at least hard texts and code points: $sets", sets.size >= 2)
        for (file in sets) {
            val entries = Fixtures.lines("pack/parity/${file.name}").toList()
            assertEquals(file.name, 0, wrongIds(entries.map { it["text"] as String }, entries.map(::ids)))
        }
    }

    @Test
    fun `token ids of every supplementary code point equal those of tokenizers`() {
        val texts = (0x10000..0x10ffff).chunked(12) { group ->
            group.joinToString(" ") { String(Character.toChars(it)).let { character -> "$character a${character}b" } }
        }
        assertEquals(87_382, texts.size)
        assertEquals(0, wrongIds(texts, Fixtures.lines("planes.jsonl").map(::ids).toList()))
    }

    @Test
    fun `half a surrogate pair is refused with its place`() {
        for (text in listOf("\ud83d", "\ude00", "a\ud83d b", "\ude00\ud83d", "\ud83d\ud83d\ude00", "😀\ude00")) {
            val alone = assertThrows(EdgeleafException.InvalidText::class.java) { encoder.encode(text) }
            assertEquals(
                "text 0 holds half a surrogate pair, which is not text; replace it with U+FFFD first", alone.message,
            )
            val second = assertThrows(EdgeleafException.InvalidText::class.java) { encoder.encode(listOf("a", text)) }
            assertTrue(second.message, checkNotNull(second.message).startsWith("text 1 holds half a surrogate pair"))
        }
    }

    @Test
    fun `U+0000 is a character`() {
        assertFalse(encoder.encode("lost\u0000parcel").contentEquals(encoder.encode("lost")))
    }

    @Test
    fun `a file, a direct buffer and a buffer of the heap give one encoder`() {
        val expected = encoder.encode(goldenTexts[0])
        FileChannel.open(Fixtures.model.toPath(), StandardOpenOption.READ).use { channel ->
            val mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
            QueryEncoder.open(mapped, "an asset", 2).use { assertArrayEquals(expected, it.encode(goldenTexts[0]), 0f) }
        }
        val data = Fixtures.model.readBytes()
        val inside = ByteBuffer.wrap(ByteArray(3) + data + ByteArray(5), 3, data.size)
        QueryEncoder.open(inside).use {
            assertArrayEquals(expected, it.encode(goldenTexts[0]), 0f)
            assertEquals(encoder.space, it.space)
            assertEquals(encoder.window, it.window)
        }
        assertEquals("the buffer's position stays", 3, inside.position())
    }

    @Test
    fun `the file says its space and window`() {
        val manifest = Fixtures.lines("spaces.jsonl").first()
        assertEquals(VectorSpace.read(manifest["space"]), encoder.space)
        assertEquals(manifest["id"], encoder.space.id)
        assertEquals(128, encoder.window)
    }

    @Test
    fun `a file that takes strings is refused with the command that helps`() {
        val error = assertThrows(EdgeleafException.NotAnEncoder::class.java) {
            QueryEncoder.open(Fixtures.file("strings.onnx"))
        }
        assertTrue(error.message, checkNotNull(error.message).contains("strings.onnx takes strings"))
        assertTrue(error.message, checkNotNull(error.message).contains("edgeleaf ship BUNDLE --input utf8 -o FOLDER"))
    }

    @Test
    fun `files that are no encoders are refused by name`() {
        val noise = temporary.newFile("noise.onnx").apply { writeBytes(ByteArray(10_000) { (it * 31).toByte() }) }
        val half = temporary.newFile("half.onnx").apply {
            writeBytes(Fixtures.model.readBytes().let { it.copyOf(it.size / 2) })
        }
        val refused = mapOf(
            File("/no/such.onnx") to "no such file",
            temporary.root to "is a folder",
            noise to "cannot open it",
            half to "cannot open it",
            temporary.newFile("empty.onnx") to "cannot open it",
            Fixtures.file("pack/tokenizer.onnx") to "is not a fused query encoder: it takes utf8: UINT8",
        )
        for ((file, reason) in refused) {
            val error = assertThrows(EdgeleafException.NotAnEncoder::class.java) { QueryEncoder.open(file) }
            assertTrue(error.message, checkNotNull(error.message).startsWith("$file"))
            assertTrue(error.message, checkNotNull(error.message).contains(reason))
        }
        for (bytes in listOf(noise.readBytes(), ByteArray(0))) {
            val error = assertThrows(EdgeleafException.NotAnEncoder::class.java) {
                QueryEncoder.open(ByteBuffer.wrap(bytes), "asset e.onnx")
            }
            assertTrue(error.message, checkNotNull(error.message).startsWith("asset e.onnx"))
        }
    }

    @Test
    fun `another schema version is refused`() {
        val error = assertThrows(EdgeleafException.UnsupportedSchema::class.java) {
            QueryEncoder.open(Fixtures.file("schema.onnx"))
        }
        assertTrue(error.message, checkNotNull(error.message).contains("schema version 99, this edgeleaf reads 1"))
    }

    @Test
    fun `no threads are refused`() {
        assertThrows(IllegalArgumentException::class.java) { QueryEncoder.open(Fixtures.model, 0) }
    }

    @Test
    fun `a closed encoder says so, and closes twice`() {
        val closed = QueryEncoder.open(Fixtures.model)
        closed.close()
        closed.close()
        val error = assertThrows(EdgeleafException.Closed::class.java) { closed.encode("parcel") }
        assertEquals("the encoder of ${Fixtures.model} is closed; open it again", error.message)
        assertEquals("the space stays", encoder.space, closed.space)
    }

    @Test
    fun `eight threads get the vectors of one`() {
        val expected = Fixtures.matrix("golden.npy")
        val pool = Executors.newFixedThreadPool(8)
        try {
            val wrong = pool.invokeAll(
                List(8) { first ->
                    Callable {
                        (first until goldenTexts.size step 8).sumOf {
                            differences(listOf(encoder.encode(goldenTexts[it])), listOf(expected[it]))
                        }
                    }
                },
            )
            assertEquals(0, wrong.sumOf { it.get() })
        } finally {
            pool.shutdown()
        }
    }

    @Test
    fun `close waits for calls of other threads, and later ones fail`() {
        val opened = QueryEncoder.open(Fixtures.model)
        val expected = encoder.encode("where is my parcel?")
        val begun = CountDownLatch(8)
        val pool = Executors.newFixedThreadPool(8)
        try {
            val calls = List(8) {
                pool.submit(
                    Callable {
                        assertArrayEquals(expected, opened.encode("where is my parcel?"), 0f)
                        begun.countDown()
                        while (true) {
                            try {
                                assertArrayEquals(expected, opened.encode("where is my parcel?"), 0f)
                            } catch (error: EdgeleafException.Closed) {
                                break
                            }
                        }
                        true
                    },
                )
            }
            begun.await()
            opened.close()
            assertThrows(EdgeleafException.Closed::class.java) { opened.encode("parcel") }
            assertTrue(calls.all { it.get() })
        } finally {
            pool.shutdown()
        }
    }

    @Test
    fun `batches hold every place once and texts of similar length`() {
        val lengths = IntArray(500) { (it * 7919) % 3_000 } + IntArray(3) { 100_000 }
        val batches = batches(lengths)
        assertEquals(lengths.indices.toList(), batches.flatten().sorted())
        for (batch in batches) {
            val longest = batch.maxOf { lengths[it] }
            assertTrue(batch.size <= 32)
            assertTrue(longest - batch.minOf { lengths[it] } <= 16)
            assertTrue(batch.size == 1 || batch.size * longest <= 65_536)
        }
    }

    private fun ids(entry: Map<*, *>): List<Long> = (entry["input_ids"] as List<*>).map { it as Long }

    /** How many texts have other token ids than expected, by the pack's tokenizer in batches of 64. */
    private fun wrongIds(texts: List<String>, expected: List<List<Long>>): Int {
        assertEquals(expected.size, texts.size)
        val environment = OrtEnvironment.getEnvironment()
        val options = OrtSession.SessionOptions().apply { setIntraOpNumThreads(1) }
        environment.createSession(Fixtures.file("pack/tokenizer.onnx").path, options).use { session ->
            return texts.zip(expected).chunked(64).sumOf { batch ->
                val encoded = batch.map { it.first.encodeToByteArray() }
                val width = encoded.maxOf { it.size }
                val rows = ByteBuffer.allocateDirect(width * batch.size)
                for (text in encoded) rows.put(text).put(ByteArray(width - text.size) { -1 })
                rows.flip()
                val shape = longArrayOf(batch.size.toLong(), width.toLong())
                OnnxTensor.createTensor(environment, rows, shape, OnnxJavaType.UINT8).use { tensor ->
                    session.run(mapOf("utf8" to tensor)).use { result ->
                        val found = rows(result["input_ids"].get().value)
                        val masks = rows(result["attention_mask"].get().value)
                        batch.indices.count { row ->
                            val kept = found[row].filterIndexed { place, _ -> masks[row][place] == 1L }
                            kept != batch[row].second
                        }
                    }
                }
            }
        }
    }

    private fun rows(value: Any): List<List<Long>> = (value as Array<*>).map { (it as LongArray).toList() }
}
