package io.github.edgeleaf

import java.io.File
import java.io.FileOutputStream
import java.io.InputStream
import java.security.DigestInputStream
import java.security.MessageDigest
import java.util.zip.ZipInputStream

/**
 * Unpacks the zip file of an index from a stream that is not trusted yet. Only files with an index's own four names are
 * written, so no name can lead out of the folder, and the number of files is limited. A link becomes a file.
 */
internal class Unpacking(private val folder: File, mostBytes: Long, private val onStep: (String) -> Unit) {
    private val limit = mostBytes
    private var left = mostBytes
    private val buffer = ByteArray(1 shl 16)

    /**
     * Writes the files so that they survive a crash.
     *
     * @return the SHA-256 of the whole stream, in lower case.
     */
    fun unpack(zip: InputStream): String {
        val stream = DigestInputStream(zip, MessageDigest.getInstance("SHA-256"))
        val entries = ZipInputStream(stream)
        val names = HashSet<String>()
        while (true) {
            val name = entries.nextEntry?.name ?: break
            if (name !in NAMES) {
                throw refused("holds ${shown(name)}; it may hold ${NAMES.joinToString()}, at its top, and nothing else")
            }
            if (!names.add(name)) throw refused("holds $name twice")
            FileOutputStream(folder.resolve(name)).use { file ->
                copy(entries, file)
                onStep("$name unpacked")
                file.fd.sync()
            }
            onStep("$name on disk")
        }
        if (names.isEmpty()) throw refused("is no zip file, or an empty one")
        readRest(stream)
        return hexadecimal(stream.messageDigest.digest())
    }

    private fun copy(from: InputStream, to: FileOutputStream) {
        while (true) {
            val count = from.read(buffer)
            if (count < 0) return
            left -= count
            if (left < 0) throw refused("holds an index of more than $limit bytes; IndexStore takes another limit")
            to.write(buffer, 0, count)
        }
    }

    /** Reads the table of contents at the end, for the hash. */
    private fun readRest(stream: InputStream) {
        var rest = 0
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) return
            rest += count
            if (rest > MOST_REST) throw refused("has more than $MOST_REST bytes behind its last file")
        }
    }

    private fun refused(why: String) = EdgeleafException.InstallFailed("the zip $why; the old index stays")

    private companion object {
        const val MOST_REST = 1 shl 20
        val NAMES = listOf(HEADER_FILE, VECTORS_FILE, DOCUMENTS_FILE, PCA_FILE)
    }
}
