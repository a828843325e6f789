package io.github.edgeleaf

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.util.concurrent.Callable
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
import kotlin.math.pow
import kotlin.random.Random
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class DocumentIndexTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val space = VectorSpace.read(Fixtures.lines("spaces.jsonl").first()["space"])

    @Test
    fun `ids and scores equal Python's`() = compareToTheBit("index", "hits.jsonl")

    @Test
    fun `ids and scores equal Python's where vectors are shortened`() = compareToTheBit("index-pca", "hits-pca.jsonl")

    private fun compareToTheBit(folder: String, hits: String) {
        val index = DocumentIndex.open(Fixtures.file(folder), space)
        val queries = Fixtures.matrix("queries.npy")
        val expected = Fixtures.lines(hits).toList()
        assertEquals(1_000, queries.size)
        assertEquals(queries.size, expected.size)
        for ((query, row) in queries.zip(expected)) {
            val found = index.search(query)
            assertEquals(row["ids"], found.map { it.id })
            assertEquals(scores(row).map { it.toRawBits() }, found.map { it.score.toRawBits() })
            for (hit in found) assertEquals(text(hit.id), hit.text)
        }
    }

    @Test
    fun `equal documents come in the order in which they were indexed`() {
        val vectors = List(200) { row -> FloatArray(4) { if (it == row % 2) 1f else 0f } }
        val index = DocumentIndex.open(write(vectors, width = 4), small)
        val found = index.search(floatArrayOf(0f, 1f, 0f, 0f), 150)
        assertEquals((1 until 200 step 2).map { "d$it" } + (0 until 100 step 2).map { "d$it" }, found.map { it.id })
        assertEquals(1f, found.first().score)
        assertEquals(0f, found.last().score)
    }

    @Test
    fun `every k gives the first k of a full sort`() {
        val random = Random(0)
        for (rows in listOf(1, 2, 63, 5_000)) {
            val vectors = List(rows) { FloatArray(4) { random.nextInt(-3, 4) / 4f } }
            val index = DocumentIndex.open(write(vectors, width = 4), small)
            val query = floatArrayOf(0.5f, -0.25f, 0.125f, 1f)
            val scores = vectors.map { row -> row.indices.sumOf { row[it].toDouble() * query[it] }.toFloat() }
            val order = scores.indices.sortedWith(compareBy({ -scores[it] }, { it }))
            for (k in listOf(1, 2, 3, 10, 100, rows, Int.MAX_VALUE)) {
                assertEquals(order.take(k).map { "d$it" }, index.search(query, k).map { it.id })
            }
        }
    }

    @Test
    fun `widths that are no multiple of four and rows larger than a block`() {
        for (width in listOf(1, 2, 3, 5, 7, 20_001)) {
            val random = Random(width)
            val vectors = List(30) { FloatArray(width) { random.nextInt(-8, 9) / 8f } }
            val query = FloatArray(width) { random.nextInt(-8, 9) / 8f }
            val index = DocumentIndex.open(write(vectors, width), space("dim" to width.toLong()))
            val best = vectors.maxOf { row -> row.indices.sumOf { row[it].toDouble() * query[it] } }
            assertEquals(best.toFloat(), index.search(query, 1).single().score)
        }
    }

    @Test
    fun `an empty index has no hits`() {
        val index = DocumentIndex.open(write(emptyList(), width = 4), small)
        assertEquals(0, index.size)
        assertEquals(emptyList<Hit>(), index.search(FloatArray(4) { 0.5f }))
    }

    @Test
    fun `an index of schema version 1 has no dims`() {
        val folder = write(List(3) { FloatArray(4) { 0.5f } }, width = 4)
        change(folder, HEADER_FILE) {
            it.replace("\"schema_version\": 2", "\"schema_version\": 1").replace(", \"dims\": 4", "")
        }
        assertEquals(3, DocumentIndex.open(folder, small).search(FloatArray(4) { 0.5f }).size)
    }

    @Test
    fun `documents are read as Python reads them`() {
        val folder = write(List(4) { FloatArray(4) { 0.5f } }, width = 4)
        folder.resolve(DOCUMENTS_FILE).writeText(
            "\n{\"id\": 7, \"text\": \"\\u00e9\\ud83d\\ude00\", \"more\": [1]}\r\n\n" +
                "{\"text\": \"\", \"id\": \"\"}\n{\"id\": -123456789012345678901, \"text\": \"\u2028\"}\n" +
                "{\"id\": \"last, without a new line\", \"text\": \"\\u0000\"}",
        )
        val found = DocumentIndex.open(folder, small).search(FloatArray(4) { 0.5f })
        assertEquals(listOf("7", "", "-123456789012345678901", "last, without a new line"), found.map { it.id })
        assertEquals(listOf("é😀", "", "\u2028", "\u0000"), found.map { it.text })
    }

    @Test
    fun `another space is refused, and both are named`() {
        val other = VectorSpace.read(Fixtures.lines("spaces.jsonl").toList()[3]["space"])
        val error = assertThrows(EdgeleafException.WrongSpace::class.java) {
            DocumentIndex.open(Fixtures.file("index"), other)
        }
        val both = "queries of the space $other cannot search an index of the space $space"
        assertTrue(error.message, both in "${error.message}")
    }

    @Test
    fun `no index`() {
        val file = temporary.newFile()
        for ((folder, reason) in mapOf(
            File("/no/such") to "no such index folder", file to "is a file, not the folder of an index",
            temporary.newFolder() to "is not an index: it has no index.json",
        )) {
            val error = assertThrows(EdgeleafException.NotAnIndex::class.java) { DocumentIndex.open(folder, small) }
            assertTrue(error.message, "$folder" in "${error.message}" && reason in "${error.message}")
        }
    }

    @Test
    fun `another schema version is refused`() {
        for (version in listOf("3", "0", "-1", "99999999999999999999")) {
            val folder = write(List(3) { FloatArray(4) { 0.5f } }, width = 4)
            change(folder, HEADER_FILE) { it.replace("\"schema_version\": 2", "\"schema_version\": $version") }
            val error = assertThrows(EdgeleafException.UnsupportedSchema::class.java) {
                DocumentIndex.open(folder, small)
            }
            assertTrue(error.message, "index of schema version $version, this edgeleaf reads 2" in "${error.message}")
        }
    }

    @Test
    fun `damage is found at once, and its file named`() {
        val faults = listOf<Triple<String, String, (File) -> Unit>>(
            Triple(HEADER_FILE, "not JSON") { it.writeText("{") },
            Triple(HEADER_FILE, "not UTF-8") { it.writeBytes(byteArrayOf(-1)) },
            Triple(HEADER_FILE, "not a JSON object") { it.writeText("[]") },
            Triple(HEADER_FILE, "longer than 1048576 bytes") { it.writeText(" ".repeat(1_048_577)) },
            Triple(HEADER_FILE, "schema_version is not a whole number") {
                edit(it, "\"schema_version\": 2", "\"schema_version\": 2.0")
            },
            Triple(HEADER_FILE, "schema_version is not a whole number") {
                edit(it, "\"schema_version\": 2", "\"schema_version\": true")
            },
            Triple(HEADER_FILE, "space is not a table") { it.writeText("""{"schema_version": 2, "space": 1}""") },
            Triple(HEADER_FILE, "space.pooling is missing") { edit(it, "\"pooling\": \"mean\", ", "") },
            Triple(HEADER_FILE, "the key \"documents\" occurs twice") {
                edit(it, "\"documents\": 3", "\"documents\": 3, \"documents\": 3")
            },
            Triple(HEADER_FILE, "documents is not a whole number from 0") {
                edit(it, "\"documents\": 3", "\"documents\": -1")
            },
            Triple(HEADER_FILE, "documents is not a whole number from 0") {
                edit(it, "\"documents\": 3", "\"documents\": 1e3")
            },
            Triple(HEADER_FILE, "documents is not a whole number from 0") {
                edit(it, "\"documents\": 3", "\"documents\": 3000000000")
            },
            Triple(HEADER_FILE, "dims is not within 1 to 4") { edit(it, "\"dims\": 4", "\"dims\": 5") },
            Triple(HEADER_FILE, "dims is not within 1 to 4") { edit(it, "\"dims\": 4", "\"dims\": 0") },
            Triple(HEADER_FILE, "dims is not within 1 to 4") { edit(it, ", \"dims\": 4", "") },
            Triple(PCA_FILE, "no such file") {
                edit(it.resolveSibling(HEADER_FILE), "\"dims\": 4", "\"dims\": 3")
                cut(it.resolveSibling(VECTORS_FILE), 3)
            },
            Triple(DOCUMENTS_FILE, "3 documents; index.json has 4") {
                edit(it.resolveSibling(HEADER_FILE), "\"documents\": 3", "\"documents\": 4")
            },
            Triple(DOCUMENTS_FILE, "2 documents; index.json has 3") {
                it.writeText(it.readLines().take(2).joinToString("\n"))
            },
            Triple(DOCUMENTS_FILE, "no such file") { it.delete() },
            Triple(DOCUMENTS_FILE, "no file") { it.delete(); it.mkdir() },
            Triple(DOCUMENTS_FILE, "not UTF-8 after byte ") {
                it.writeBytes(it.readBytes() + byteArrayOf(0xc3.toByte()))
            },
            Triple(DOCUMENTS_FILE, "document 1 from 0: not JSON") { edit(it, "\"d1\"", "d1") },
            Triple(DOCUMENTS_FILE, "document 1 from 0: the key \"id\" occurs twice") {
                edit(it, "\"d1\"", "\"d1\", \"id\": \"d\"")
            },
            Triple(DOCUMENTS_FILE, "document 2 from 0 has no id and text that are strings") {
                edit(it, "\"d2\"", "null")
            },
            Triple(DOCUMENTS_FILE, "document 2 from 0 has no id and text that are strings") {
                edit(it, "\"d2\"", "1.5")
            },
            Triple(DOCUMENTS_FILE, "document 0 from 0 has no id and text that are strings") {
                edit(it, "\"text\": \"document 0\"", "\"t\": 0")
            },
            Triple(DOCUMENTS_FILE, "document 0 from 0 has no id and text that are strings") {
                it.writeText("[]\n".repeat(3))
            },
            Triple(VECTORS_FILE, "no such file") { it.delete() },
            Triple(VECTORS_FILE, "a link that leads out of the folder") { link(it) },
            Triple(VECTORS_FILE, "not a .npy file") { it.writeText("hello, world") },
            Triple(VECTORS_FILE, "not a .npy file") { it.writeText("") },
            Triple(VECTORS_FILE, "version 9.0 of .npy") { poke(it, 6, 9) },
            Triple(VECTORS_FILE, "its .npy header cannot be read") { poke(it, 10, 'x'.code.toByte()) },
            Triple(VECTORS_FILE, "its .npy header cannot be read") { poke(it, 9, 127) },
            Triple(VECTORS_FILE, "its .npy header cannot be read") { it.writeBytes(it.readBytes().copyOf(9)) },
            Triple(VECTORS_FILE, "its .npy header cannot be read") { it.writeBytes(it.readBytes().copyOf(60)) },
            Triple(VECTORS_FILE, "<f4; float16 in C order is needed") { bytes(it, "<f2", "<f4") },
            Triple(VECTORS_FILE, "<f2 in Fortran order; float16 in C order is needed") {
                bytes(it, "False, 'shape': (3, 4), }", "True, 'shape': (3, 4), } ")
            },
            Triple(VECTORS_FILE, "4 x 4; 3 x 4 is needed") { bytes(it, "(3, 4)", "(4, 4)") },
            Triple(VECTORS_FILE, "12; 3 x 4 is needed") { bytes(it, "(3, 4), }", "(12,), } ") },
            Triple(VECTORS_FILE, "one number; 3 x 4 is needed") { bytes(it, "(3, 4), }", "(), }    ") },
            Triple(VECTORS_FILE, "151 bytes; 152 are needed") { it.writeBytes(it.readBytes().copyOf(151)) },
            Triple(VECTORS_FILE, "153 bytes; 152 are needed") { it.writeBytes(it.readBytes().copyOf(153)) },
            Triple(VECTORS_FILE, "row 2 holds numbers that are not finite") { poke(it, 151, 0x7c) },
            Triple(VECTORS_FILE, "row 0 holds numbers that are not finite") { poke(it, 129, 0xfe.toByte()) },
        )
        for ((name, reason, damage) in faults) {
            val folder = write(List(3) { FloatArray(4) { 0.5f } }, width = 4)
            damage(folder.resolve(name))
            val error = assertThrows(reason, EdgeleafException.DamagedIndex::class.java) {
                DocumentIndex.open(folder, small)
            }
            val message = "${error.message}"
            assertTrue("$message, not $reason", message.startsWith("$folder: damaged index ($name: $reason"))
            assertTrue(message, message.endsWith("); make or install it again"))
        }
    }

    @Test
    fun `damaged axes are found`() {
        val vectors = List(3) { FloatArray(2) { 0.5f } }
        val axes = List(4) { row -> FloatArray(2) { if (it == row) 1f else 0f } }
        val whole = write(vectors, width = 2, dim = 4, pca = axes)
        val found = DocumentIndex.open(whole, small).search(FloatArray(4) { 0.5f })
        assertEquals(listOf("d0", "d1", "d2"), found.map { it.id })
        for ((reason, damage) in listOf<Pair<String, (File) -> Unit>>(
            "<f2; float32 in C order is needed" to { bytes(it, "<f4", "<f2") },
            "4 x 3; 4 x 2 is needed" to { bytes(it, "(4, 2)", "(4, 3)") },
            "159 bytes; 160 are needed" to { it.writeBytes(it.readBytes().copyOf(159)) },
            "row 3 holds numbers that are not finite" to { poke(it, 158, -1); poke(it, 159, 0x7f) },
        )) {
            val folder = write(vectors, width = 2, dim = 4, pca = axes)
            damage(folder.resolve(PCA_FILE))
            val error = assertThrows(reason, EdgeleafException.DamagedIndex::class.java) {
                DocumentIndex.open(folder, small)
            }
            assertTrue("${error.message}", "($PCA_FILE: $reason" in "${error.message}")
        }
    }

    @Test
    fun `queries that are no vectors of the space are refused`() {
        val index = DocumentIndex.open(write(List(3) { FloatArray(4) { 0.5f } }, width = 4), small)
        for (query in listOf(FloatArray(0), FloatArray(3), FloatArray(5))) {
            val error = assertThrows(EdgeleafException.InvalidVector::class.java) { index.search(query) }
            assertEquals("a query vector of ${query.size} numbers; 4 are needed, as encode returns them", error.message)
        }
        for (wrong in listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY)) {
            val error = assertThrows(EdgeleafException.InvalidVector::class.java) {
                index.search(floatArrayOf(0f, 0f, wrong, 0f))
            }
            assertEquals("the query vector holds numbers that are not finite; encode it again", error.message)
        }
        val large = assertThrows(EdgeleafException.InvalidVector::class.java) {
            index.search(FloatArray(4) { Float.MAX_VALUE })
        }
        assertTrue("${large.message}", "so large that a score is not finite" in "${large.message}")
        for (k in listOf(0, -1, Int.MIN_VALUE)) {
            assertThrows(IllegalArgumentException::class.java) { index.search(FloatArray(4), k) }
        }
    }

    @Test
    fun `a large index is checked where it is used`() {
        val width = 64
        val rows = (CHECKED_BYTES / (2 * width) + 10).toInt()
        val space = space("dim" to width.toLong())
        val query = FloatArray(width) { 0.125f }
        val folder = temporary.newFolder()
        header(folder, rows, width, width)
        val vectors = folder.resolve(VECTORS_FILE)
        vectors.outputStream().buffered().use { file ->
            file.write(npyHeader("<f2", rows, width))
            val row = halves(listOf(FloatArray(width) { 0.125f }))
            repeat(rows) { file.write(row) }
        }
        val documents = folder.resolve(DOCUMENTS_FILE)
        val text = "a".repeat(120)
        documents.bufferedWriter().use { file -> repeat(rows) { file.write("{\"id\":$it,\"text\":\"$text\"}\n") } }
        assertTrue(vectors.length() > CHECKED_BYTES && documents.length() > CHECKED_BYTES)

        val number = 128 + 2L * width * (rows - 3) + 1 // the upper byte of a number in the last row but two
        poke(vectors, number, 0x3c) // makes it 1 and a little
        val index = DocumentIndex.open(folder, space)
        assertEquals("${rows - 3}", index.search(query, 1).single().id)
        poke(vectors, number, 0x7c)
        val vector = assertThrows(EdgeleafException.DamagedIndex::class.java) { index.search(query) }
        assertTrue("${vector.message}", "($VECTORS_FILE: row ${rows - 3} holds numbers" in "${vector.message}")
        poke(vectors, number, 0x3c)
        edit(documents, "{\"id\":${rows - 3},", "{\"no\":${rows - 3},")
        val again = DocumentIndex.open(folder, space)
        val document = assertThrows(EdgeleafException.DamagedIndex::class.java) { again.search(query) }
        assertTrue(
            "${document.message}", "($DOCUMENTS_FILE: document ${rows - 3} from 0 has no id" in "${document.message}",
        )
    }

    @Test
    fun `a file of more than 2 GB is read on both sides of each border`() {
        val file = temporary.newFile()
        val start = 7L
        val size = (5L shl 29) + 12 // 2.5 GB: three maps
        java.io.RandomAccessFile(file, "rw").use { stream ->
            stream.setLength(start + size) // no room on the disk is used for what is not written
            for (border in listOf(1L shl 30, 1L shl 31)) {
                stream.seek(start + border - 4)
                stream.write(byteArrayOf(1, 0, 2, 0, 3, 0, 4, 0))
            }
            stream.seek(start + size - 2)
            stream.write(byteArrayOf(5, 1))
        }
        val mapped = Mapped.of(file, start)
        assertEquals(size, mapped.size)
        for (border in listOf(1L shl 30, 1L shl 31)) {
            val halves = ShortArray(6)
            mapped.readHalves(border - 6, halves, 6)
            assertEquals(listOf<Short>(0, 1, 2, 3, 4, 0), halves.toList())
            val bytes = ByteArray(5)
            mapped.read(border - 3, bytes, 5)
            assertEquals(listOf<Byte>(0, 2, 0, 3, 0), bytes.toList())
        }
        val last = ShortArray(1)
        mapped.readHalves(size - 2, last, 1)
        assertEquals(0x105.toShort(), last[0])
    }

    @Test
    fun `every float16 number is read exactly`() {
        for (bits in 0..0xffff) {
            val exponent = bits shr 10 and 31
            val fraction = bits and 1023
            val size = when (exponent) {
                0 -> fraction * 2.0.pow(-24)
                31 -> if (fraction == 0) Double.POSITIVE_INFINITY else Double.NaN
                else -> (1024 + fraction) * 2.0.pow(exponent - 25)
            }
            val expected = if (bits < 0x8000) size else -size
            assertEquals(bits.toString(), expected, floatOfHalf(bits).toDouble(), 0.0)
        }
    }

    @Test
    fun `a closed index says so, and closes twice`() {
        val folder = write(List(3) { FloatArray(4) { 0.5f } }, width = 4)
        val index = DocumentIndex.open(folder, small)
        index.close()
        index.close()
        val error = assertThrows(EdgeleafException.Closed::class.java) { index.search(FloatArray(4)) }
        assertEquals("the index $folder is closed; open it again", error.message)
        assertEquals(3, index.size)
    }

    @Test
    fun `eight threads find what one finds, while another closes the index`() {
        val index = DocumentIndex.open(Fixtures.file("index"), space)
        val queries = Fixtures.matrix("queries.npy").take(160)
        val expected = Fixtures.lines("hits.jsonl").take(160).toList()
        val searched = CountDownLatch(8)
        val pool = Executors.newFixedThreadPool(8)
        try {
            val calls = List(8) { first ->
                pool.submit(
                    Callable {
                        for (i in first until queries.size step 8) {
                            assertEquals(expected[i]["ids"], index.search(queries[i]).map { it.id })
                        }
                        searched.countDown()
                        while (true) {
                            try {
                                assertEquals(expected[first]["ids"], index.search(queries[first]).map { it.id })
                            } catch (error: EdgeleafException.Closed) {
                                break
                            }
                        }
                        true
                    },
                )
            }
            searched.await()
            index.close()
            assertTrue(calls.all { it.get() })
        } finally {
            pool.shutdown()
        }
    }

    @Test
    fun `hits are values`() {
        val hit = Hit("a", "b", 0.5f)
        assertEquals(hit, Hit("a", "b", 0.5f))
        assertEquals(hit.hashCode(), Hit("a", "b", 0.5f).hashCode())
        assertEquals(4, setOf(hit, Hit("b", "b", 0.5f), Hit("a", "a", 0.5f), Hit("a", "b", 0.25f), hit).size)
        assertEquals("Hit(id=a, score=0.5, text=\"b\")", hit.toString())
    }

    private fun text(id: String): String = documents.getValue(id)

    private val documents: Map<String, String> by lazy {
        Fixtures.lines("index/documents.jsonl").associate { it["id"] as String to it["text"] as String }
    }

    private fun scores(hits: Map<*, *>): List<Float> = (hits["scores"] as List<*>).map { (it as Number).toFloat() }

    private fun write(vectors: List<FloatArray>, width: Int, dim: Int = width, pca: List<FloatArray>? = null): File =
        writeIndex(temporary.newFolder(), vectors, width, dim, pca)

    private fun change(folder: File, name: String, change: (String) -> String) {
        val file = folder.resolve(name)
        val text = file.readText()
        check(change(text) != text)
        file.writeText(change(text))
    }

    private fun edit(file: File, old: String, new: String) = change(file.parentFile, file.name) { it.replace(old, new) }

    private fun bytes(file: File, old: String, new: String) {
        val text = file.readBytes().toString(Charsets.ISO_8859_1)
        check(old in text)
        file.writeBytes(text.replace(old, new).toByteArray(Charsets.ISO_8859_1))
    }

    private fun poke(file: File, place: Long, byte: Byte) {
        java.io.RandomAccessFile(file, "rw").use {
            it.seek(place)
            it.write(byte.toInt())
        }
    }

    /** Leaves the first numbers of three rows of four. */
    private fun cut(file: File, width: Int) {
        file.writeBytes(npyHeader("<f2", 3, width) + halves(List(3) { FloatArray(width) { 0.5f } }))
    }

    private fun link(file: File) {
        val elsewhere = temporary.newFile()
        file.copyTo(elsewhere, overwrite = true)
        file.delete()
        Files.createSymbolicLink(file.toPath(), elsewhere.toPath())
    }

    private companion object {
    }
}

/** A space of vectors of four numbers. */
internal val small: VectorSpace = space()

internal fun space(vararg changes: Pair<String, Any?>): VectorSpace = VectorSpace.read(
    mapOf(
        "teacher" to "tests/small", "revision" to null, "weights_sha256" to "5f", "pooling" to "mean",
        "normalized" to true, "query_prompt" to "", "document_prompt" to "", "dim" to 4L,
    ) + changes,
)

/** Writes an index of documents d0, d1, ... of [space], as `edgeleaf index` does. */
internal fun writeIndex(
    folder: File, vectors: List<FloatArray>, width: Int, dim: Int = width, pca: List<FloatArray>? = null,
): File {
    header(folder, vectors.size, width, dim)
    folder.resolve(DOCUMENTS_FILE).writeText(
        vectors.indices.joinToString("") { "{\"id\": \"d$it\", \"text\": \"document $it\"}\n" },
    )
    folder.resolve(VECTORS_FILE).writeBytes(npyHeader("<f2", vectors.size, width) + halves(vectors))
    pca?.let { folder.resolve(PCA_FILE).writeBytes(npyHeader("<f4", it.size, width) + floats(it)) }
    return folder
}

internal fun header(folder: File, documents: Int, width: Int, dim: Int) = folder.resolve(HEADER_FILE).writeText(
    """{"schema_version": 2, "space": {"teacher": "tests/small", "revision": null, "weights_sha256": "5f", """ +
        """"pooling": "mean", "normalized": true, "query_prompt": "", "document_prompt": "", "dim": $dim}, """ +
        """"documents": $documents, "dims": $width}""",
)

internal fun npyHeader(type: String, rows: Int, width: Int): ByteArray {
    val head = "{'descr': '$type', 'fortran_order': False, 'shape': ($rows, $width), }".padEnd(117) + "\n"
    return byteArrayOf(0x93.toByte()) + "NUMPY".toByteArray() + byteArrayOf(1, 0, 118, 0) + head.toByteArray()
}

/** Numbers that float16 holds exactly, as float16. */
internal fun halves(vectors: List<FloatArray>): ByteArray {
    val out = ByteBuffer.allocate(2 * vectors.sumOf { it.size }).order(ByteOrder.LITTLE_ENDIAN)
    for (number in vectors.flatMap { it.asList() }) {
        val bits = number.toRawBits()
        val half = if (number == 0f) 0 else (bits ushr 13 and 0x3ff) or ((bits ushr 23 and 0xff) - 112 shl 10)
        check(number == 0f || ((bits ushr 23 and 0xff) in 113..142 && bits and 0x1fff == 0))
        out.putShort((half or (bits ushr 16 and 0x8000)).toShort())
    }
    return out.array()
}

private fun floats(rows: List<FloatArray>): ByteArray {
    val out = ByteBuffer.allocate(4 * rows.sumOf { it.size }).order(ByteOrder.LITTLE_ENDIAN)
    for (number in rows.flatMap { it.asList() }) out.putFloat(number)
    return out.array()
}
