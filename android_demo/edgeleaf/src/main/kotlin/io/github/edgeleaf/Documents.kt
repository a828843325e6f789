package io.github.edgeleaf

import java.io.File
import java.io.IOException
import java.math.BigInteger
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.CharBuffer
import java.nio.charset.CoderResult
import java.nio.charset.CodingErrorAction

/**
 * The ids and texts of `documents.jsonl`. They are read when they are needed, by a table of their places in the file,
 * 12 bytes per document. Safe to share between threads.
 *
 * @throws EdgeleafException.DamagedIndex the file is not UTF-8, or a line is no document. In a file of up to
 *   [CHECKED_BYTES], all lines are checked at once; in a longer one the first and the last, the others when read.
 */
internal class Documents(private val folder: File) {
    private val mapped: Mapped
    private var starts = LongArray(1024)
    private var lengths = IntArray(1024)

    /** How many. */
    var size: Int = 0
        private set

    init {
        val file = fileInside(folder, DOCUMENTS_FILE)
        try {
            findLines(file)
            mapped = Mapped.of(file)
        } catch (error: IOException) {
            throw damaged(folder, DOCUMENTS_FILE, reasonOf(error), error)
        }
        starts = starts.copyOf(size)
        lengths = lengths.copyOf(size)
        if (mapped.size <= CHECKED_BYTES) {
            for (row in 0 until size) read(row)
        } else if (size > 0) {
            read(0)
            read(size - 1)
        }
    }

    /** The id and the text of a document. */
    fun read(row: Int): Pair<String, String> {
        val line = ByteArray(lengths[row])
        mapped.read(starts[row], line, line.size)
        val document = try {
            parseJson(line) as? Map<*, *>
        } catch (fault: JsonFault) {
            throw damaged(folder, DOCUMENTS_FILE, "document $row from 0: ${fault.message}")
        }
        val id = when (val found = document?.get("id")) {
            is Long, is BigInteger -> found.toString()
            else -> found as? String
        }
        val text = document?.get("text") as? String
        if (id == null || text == null) {
            throw damaged(folder, DOCUMENTS_FILE, "document $row from 0 has no id and text that are strings")
        }
        return id to text
    }

    /** Finds the lines that are not empty, and checks that the file is UTF-8. */
    private fun findLines(file: File) {
        val utf8 = Utf8Check()
        val piece = ByteArray(PIECE)
        var position = 0L
        var start = 0L
        file.inputStream().use { stream ->
            while (true) {
                val count = stream.read(piece)
                if (count < 0) break
                if (!utf8.accepts(piece, count)) throw notUtf8(position)
                for (i in 0 until count) {
                    if (piece[i] == NEW_LINE) {
                        add(start, position + i)
                        start = position + i + 1
                    }
                }
                position += count
            }
        }
        if (!utf8.isComplete()) throw notUtf8(position)
        add(start, position)
    }

    private fun notUtf8(position: Long) = damaged(folder, DOCUMENTS_FILE, "not UTF-8 after byte $position")

    private fun add(start: Long, end: Long) {
        if (end == start) return
        if (end - start > Int.MAX_VALUE) throw damaged(folder, DOCUMENTS_FILE, "document $size from 0 is too long")
        if (size == starts.size) {
            starts = starts.copyOf(2 * size)
            lengths = lengths.copyOf(2 * size)
        }
        starts[size] = start
        lengths[size++] = (end - start).toInt()
    }

    private companion object {
        const val PIECE = 1 shl 16
        const val NEW_LINE = '\n'.code.toByte()
    }
}

/** Checks UTF-8 that comes in pieces. */
private class Utf8Check {
    private val decoder = Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
    private val ignored = CharBuffer.allocate(1 shl 12)
    private var rest = ByteArray(0)

    /** Whether the bytes so far are UTF-8, but for a last character that may still be completed. */
    fun accepts(bytes: ByteArray, count: Int): Boolean {
        val input = ByteBuffer.wrap(rest + bytes.copyOf(count))
        while (true) {
            val found = decoder.decode(input, ignored, false)
            val buffer: Buffer = ignored // Android 8 has clear() only there
            buffer.clear()
            if (found.isError) return false
            if (found === CoderResult.UNDERFLOW) break
        }
        rest = ByteArray(input.remaining()).also { input.get(it) }
        return true
    }

    /** Whether the last character is complete. */
    fun isComplete(): Boolean = rest.isEmpty()
}
