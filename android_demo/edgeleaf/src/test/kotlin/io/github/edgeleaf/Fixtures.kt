package io.github.edgeleaf

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** What `android_demo/tools/fixtures.py` wrote with Python: the encoder, texts and vectors, indexes and their hits. */
internal object Fixtures {
    val folder: File = File(checkNotNull(System.getProperty("edgeleaf.fixtures")) { "-Dedgeleaf.fixtures is missing" })
        .canonicalFile

    /** The fused file that takes bytes. */
    val model: File get() = file("pack/query_encoder.onnx")

    /** One encoder for all tests that do not close it. */
    val encoder: QueryEncoder by lazy { QueryEncoder.open(model) }

    fun file(name: String): File = folder.resolve(name).also {
        check(it.exists()) { "$it is missing; write it with: python android_demo/tools/fixtures.py" }
    }

    /** The lines of a file, each as a table. */
    fun lines(name: String): Sequence<Map<*, *>> =
        file(name).readLines().asSequence().filter { it.isNotEmpty() }.map { parseJson(it) as Map<*, *> }

    /** The rows of a float32 matrix in .npy. */
    fun matrix(name: String): List<FloatArray> {
        val bytes = ByteBuffer.wrap(file(name).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
        val start = 10 + bytes.getShort(8)
        val header = String(bytes.array(), 10, start - 10)
        val shape = Regex("'<f4', 'fortran_order': False, 'shape': \\((\\d+), (\\d+)\\)")
        val (rows, width) = checkNotNull(shape.find(header)).destructured
        val numbers = bytes.position(start).slice().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return List(rows.toInt()) { FloatArray(width.toInt()).also { row -> numbers.get(row) } }
    }
}

/** How many numbers differ in any bit. */
internal fun differences(found: List<FloatArray>, expected: List<FloatArray>): Int {
    check(found.size == expected.size) { "${found.size} vectors, ${expected.size} are expected" }
    return found.zip(expected).sumOf { (one, other) ->
        check(one.size == other.size) { "${one.size} numbers, ${other.size} are expected" }
        one.indices.count { one[it].toRawBits() != other[it].toRawBits() }
    }
}
