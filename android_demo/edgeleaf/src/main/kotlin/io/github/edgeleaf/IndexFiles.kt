package io.github.edgeleaf

import java.io.DataInputStream
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

internal const val HEADER_FILE = "index.json"
internal const val VECTORS_FILE = "vectors.npy"
internal const val DOCUMENTS_FILE = "documents.jsonl"
internal const val PCA_FILE = "pca.npy"

/** Files of up to this many bytes are checked when they are opened; larger ones where they are used. As in Python. */
internal const val CHECKED_BYTES: Long = 64L shl 20

private const val HEADER_BYTES = 1 shl 20
private const val INDEX_SCHEMA = 2L
private const val NPY_HEADER_BYTES = 1 shl 16
private val NPY_MAGIC = "\u0093NUMPY".toByteArray(Charsets.ISO_8859_1)
private val NPY_HEADER =
    Regex("""\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\}[ \n]*""")

internal fun damaged(folder: File, name: String, why: String, cause: Throwable? = null) =
    EdgeleafException.DamagedIndex("$folder: damaged index ($name: $why); make or install it again", cause)

/** What `index.json` says. */
internal class IndexHeader(val space: VectorSpace, val documents: Int, val dims: Int)

/** One of the index's files, which must lie in its folder. */
internal fun fileInside(folder: File, name: String): File {
    val file = folder.resolve(name)
    try {
        if (!file.exists()) throw damaged(folder, name, "no such file")
        if (!file.canonicalFile.startsWith(folder.canonicalFile)) {
            throw damaged(folder, name, "a link that leads out of the folder")
        }
        if (!file.isFile) throw damaged(folder, name, "no file")
    } catch (error: IOException) {
        throw damaged(folder, name, reasonOf(error), error)
    }
    return file
}

/** Reads and checks `index.json`. */
internal fun readHeader(folder: File): IndexHeader {
    val file = fileInside(folder, HEADER_FILE)
    fun fault(why: String) = damaged(folder, HEADER_FILE, why)
    val header = try {
        if (file.length() > HEADER_BYTES) throw fault("longer than $HEADER_BYTES bytes")
        parseJson(file.readBytes()) as? Map<*, *> ?: throw fault("not a JSON object")
    } catch (error: IOException) {
        throw damaged(folder, HEADER_FILE, reasonOf(error), error)
    } catch (fault: JsonFault) {
        throw fault(fault.message.orEmpty())
    }
    val version = header["schema_version"] as? Number
    if (version == null || version is Double) throw fault("schema_version is not a whole number")
    if (version != 1L && version != INDEX_SCHEMA) {
        throw EdgeleafException.UnsupportedSchema(
            "$folder: index of schema version ${shown(version)}, this edgeleaf reads $INDEX_SCHEMA and older; " +
                "make it again",
        )
    }
    val space = try {
        VectorSpace.read(header["space"], "space.")
    } catch (fault: JsonFault) {
        throw fault(fault.message.orEmpty())
    }
    val documents = header["documents"] as? Long
    if (documents == null || documents !in 0..Int.MAX_VALUE) throw fault("documents is not a whole number from 0")
    val dims = if (version == 1L) space.dim.toLong() else header["dims"] as? Long
    if (dims == null || dims !in 1..space.dim) throw fault("dims is not within 1 to ${space.dim}")
    return IndexHeader(space, documents.toInt(), dims.toInt())
}

/** A matrix in .npy, mapped: float16 [rows, width]. */
internal fun openHalves(folder: File, name: String, rows: Int, width: Int): Mapped {
    val matrix = openMatrix(folder, name, rows, width, "<f2", 2)
    if (matrix.size <= CHECKED_BYTES) {
        val row = ShortArray(width)
        for (number in 0 until rows) {
            matrix.readHalves(2L * number * width, row, width)
            if (!isFinite(row, 0, width)) throw notFinite(folder, name, number)
        }
    }
    return matrix
}

/** Reads a whole matrix in .npy: float32 [rows, width], row by row. */
internal fun readFloats(folder: File, name: String, rows: Int, width: Int): FloatArray {
    val matrix = openMatrix(folder, name, rows, width, "<f4", 4)
    if (matrix.size > CHECKED_BYTES) throw damaged(folder, name, "larger than $CHECKED_BYTES bytes")
    val bytes = ByteArray(matrix.size.toInt())
    matrix.read(0, bytes, bytes.size)
    val numbers = FloatArray(rows * width)
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(numbers)
    val wrong = numbers.indexOfFirst { !it.isFinite() }
    if (wrong >= 0) throw notFinite(folder, name, wrong / width)
    return numbers
}

internal fun notFinite(folder: File, name: String, row: Int) =
    damaged(folder, name, "row $row holds numbers that are not finite")

/** Whether all float16 numbers [from, from + count) are finite. */
internal fun isFinite(halves: ShortArray, from: Int, count: Int): Boolean {
    for (i in from until from + count) if (halves[i].toInt() and 0x7c00 == 0x7c00) return false
    return true
}

/** Checks the head of a .npy file against what it should hold, and its size; maps the numbers. */
private fun openMatrix(folder: File, name: String, rows: Int, width: Int, type: String, bytes: Int): Mapped {
    val file = fileInside(folder, name)
    fun fault(why: String) = damaged(folder, name, why)
    try {
        val (start, head) = file.inputStream().buffered().use { stream -> npyHead(DataInputStream(stream), ::fault) }
        val (found, order, shape) = NPY_HEADER.matchEntire(head)?.destructured
            ?: throw fault("its .npy header cannot be read")
        val kind = if (type == "<f2") "float16" else "float32"
        if (found != type || order != "False") {
            throw fault("$found${if (order == "True") " in Fortran order" else ""}; $kind in C order is needed")
        }
        val sizes = shape.split(',').map { it.trim() }.filter { it.isNotEmpty() }
        if (sizes != listOf("$rows", "$width")) {
            throw fault("${sizes.joinToString(" x ").take(60).ifEmpty { "one number" }}; $rows x $width is needed")
        }
        val needed = start + rows.toLong() * width * bytes
        if (file.length() != needed) throw fault("${file.length()} bytes; $needed are needed")
        return Mapped.of(file, start)
    } catch (error: IOException) {
        throw damaged(folder, name, reasonOf(error), error)
    }
}

/** Reads a .npy file's header; returns where its numbers begin, and the header's text. */
private fun npyHead(stream: DataInputStream, fault: (String) -> EdgeleafException): Pair<Long, String> {
    val first = ByteArray(NPY_MAGIC.size + 2)
    if (readFully(stream, first) < NPY_MAGIC.size || !first.copyOf(NPY_MAGIC.size).contentEquals(NPY_MAGIC)) {
        throw fault("not a .npy file")
    }
    val major = first[NPY_MAGIC.size].toInt()
    val minor = first[NPY_MAGIC.size + 1].toInt()
    if (major !in 1..2 || minor != 0) throw fault("version $major.$minor of .npy")
    val digits = ByteArray(if (major == 1) 2 else 4)
    val unreadable = "its .npy header cannot be read"
    if (readFully(stream, digits) < digits.size) throw fault(unreadable)
    val length = digits.foldRight(0L) { byte, sum -> sum * 256 + (byte.toInt() and 0xff) }
    if (length > NPY_HEADER_BYTES) throw fault(unreadable)
    val head = ByteArray(length.toInt())
    if (readFully(stream, head) < head.size) throw fault(unreadable)
    return (first.size + digits.size + length) to String(head, Charsets.ISO_8859_1)
}

/** Fills the array as far as the stream goes; returns how many bytes came. */
private fun readFully(stream: DataInputStream, into: ByteArray): Int {
    var done = 0
    while (done < into.size) {
        val some = stream.read(into, done, into.size - done)
        if (some < 0) break
        done += some
    }
    return done
}
