package io.github.edgeleaf

import java.io.File
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

/**
 * A part of a file, mapped into memory; it may be larger than 2 GB. Safe to share between threads.
 *
 * A map ends when the garbage collector finds it unused. Until then the file's content stays readable, even if the
 * file is deleted. Cutting the file short or rewriting it in place breaks its readers.
 *
 * @property size in bytes.
 */
internal class Mapped private constructor(private val parts: List<ByteBuffer>, val size: Long) {

    /** Copies `count` bytes, from `position` on. */
    fun read(position: Long, into: ByteArray, count: Int) {
        var done = 0
        while (done < count) {
            val part = at(position + done)
            val some = minOf(count - done, part.remaining())
            part.get(into, done, some)
            done += some
        }
    }

    /** Copies `count` numbers of two bytes each, little-endian, from the even `position` on. */
    fun readHalves(position: Long, into: ShortArray, count: Int) {
        var done = 0
        while (done < count) {
            val part = at(position + 2L * done).asShortBuffer()
            val some = minOf(count - done, part.remaining())
            part.get(into, done, some)
            done += some
        }
    }

    /** The part that holds a position, from there on. */
    private fun at(position: Long): ByteBuffer {
        val part = parts[(position / PART).toInt()].duplicate().order(ByteOrder.LITTLE_ENDIAN)
        val buffer: Buffer = part // Android 8 has position(int) only there
        buffer.position((position % PART).toInt())
        return part
    }

    companion object {
        private const val PART = 1L shl 30

        /** Maps a file from byte `start` to its end. Throws an IOException. */
        fun of(file: File, start: Long = 0): Mapped =
            FileChannel.open(file.toPath(), StandardOpenOption.READ).use { channel ->
                val size = channel.size() - start
                val parts = (0 until size step PART).map {
                    channel.map(FileChannel.MapMode.READ_ONLY, start + it, minOf(PART, size - it))
                }
                Mapped(parts, size)
            }
    }
}
