package io.github.edgeleaf

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardCopyOption.REPLACE_EXISTING
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/**
 * A folder with the current index, which a newer one replaces completely or not at all.
 *
 * ```
 * val store = IndexStore(File(context.noBackupFilesDir, "index"))
 * val index = store.current(encoder.space)
 *     ?: context.assets.open("index.zip").use { store.install(it, sha256, encoder.space) }
 * ```
 *
 * If the process is killed during an install, the old index stays, and the next install removes what was left over. An
 * install does not disturb searches: code that holds the old index can go on using it although its files are deleted,
 * and its space on disk is freed once it is no longer in use. (Windows does not delete files in use; there, a later
 * install does.)
 *
 * All methods may be called from several threads and processes at once; one install waits for another. None of them
 * belongs on Android's main thread.
 *
 * @property root the folder; it is made if it is missing. Nothing else may be kept in it.
 */
public class IndexStore internal constructor(
    public val root: File,
    private val mostBytes: Long,
    private val onStep: (String) -> Unit,
) {
    /**
     * @param root the folder; it is made if it is missing. Nothing else may be kept in it.
     * @param mostBytes greatest size of an unpacked index, 4 GiB by default; a larger one is refused.
     */
    @JvmOverloads
    public constructor(root: File, mostBytes: Long = DEFAULT_MOST_BYTES) : this(root, mostBytes, {})

    private class Pointer(val number: Int, val sha256: String)

    private val versions = root.resolve("versions")
    private val pointerFile = root.resolve("current")
    private var openNumber = 0
    private var open: DocumentIndex? = null

    /**
     * Returns the installed index, or null if there is none yet. Each call returns the same one until an install
     * replaces it; nobody needs to close it.
     *
     * @param space the space of the queries: [QueryEncoder.space].
     * @throws EdgeleafException.WrongSpace the index is of another space, for instance after an update of the encoder:
     *   install one of this space.
     * @throws EdgeleafException.DamagedIndex one of its files was changed: install it again.
     * @throws EdgeleafException.NotAnIndex its folder was removed: install it again.
     * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
     */
    @Synchronized
    public fun current(space: VectorSpace): DocumentIndex? {
        while (true) {
            val pointer = pointer() ?: return null
            open?.takeIf { openNumber == pointer.number && !it.isClosed }?.let {
                requireSameSpace(space, it.space, it.toString())
                return it
            }
            try {
                return DocumentIndex.open(folder(pointer.number), space).also {
                    open = it
                    openNumber = pointer.number
                }
            } catch (error: EdgeleafException) {
                if (pointer()?.number == pointer.number) throw error // or else an install has just replaced it
            }
        }
    }

    /**
     * Installs an index, unless the same one is installed already, and returns it. See the other [install].
     *
     * @param zip a zip file with the files of the index at its top: `cd INDEX && zip -r ../index.zip .`
     */
    public fun install(zip: File, sha256: String, space: VectorSpace): DocumentIndex = try {
        zip.inputStream().use { install(it, sha256, space) }
    } catch (error: IOException) {
        throw EdgeleafException.InstallFailed("$zip cannot be read: ${reasonOf(error)}; the old index stays", error)
    }

    /**
     * Installs an index, unless the same one is installed already, and returns it. Reads the stream once, without a
     * copy of the zip; does not close it.
     *
     * Needs room on the disk for the old and the new index.
     *
     * @param zip a zip file with the files of the index at its top: `cd INDEX && zip -r ../index.zip .`
     * @param sha256 its SHA-256, 64 hexadecimal digits, from a source that you trust.
     * @param space the space of the queries: [QueryEncoder.space].
     * @throws EdgeleafException.WrongSpace the new index is of another space; the message names both.
     * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
     * @throws EdgeleafException.InstallFailed the zip has another hash, is no zip file, is cut short, holds files that
     *   do not belong to an index, is too large, or holds a damaged index; or the disk is full. The old index stays
     *   after every exception.
     */
    public fun install(zip: InputStream, sha256: String, space: VectorSpace): DocumentIndex {
        val wanted = sha256.lowercase()
        if (!SHA256.matches(wanted)) {
            throw EdgeleafException.InstallFailed("sha256 is ${shown(sha256)}; 64 hexadecimal digits are needed")
        }
        return try {
            exclusively { installed(wanted, space) ?: install(zip, wanted, space, pointer()) }
        } catch (error: IOException) {
            throw EdgeleafException.InstallFailed(
                "the index could not be installed in $root: ${reasonOf(error)}; the old index stays", error,
            )
        }
    }

    /** The current index, if it has this hash and can be used. */
    private fun installed(sha256: String, space: VectorSpace): DocumentIndex? =
        if (pointer()?.sha256 != sha256) null else {
            try {
                current(space)
            } catch (_: EdgeleafException.DamagedIndex) {
                null
            } catch (_: EdgeleafException.NotAnIndex) {
                null
            }
        }

    private fun install(zip: InputStream, sha256: String, space: VectorSpace, old: Pointer?): DocumentIndex {
        removeAllBut(old?.number)
        onStep("left-overs removed")
        val number = 1 + maxOf(old?.number ?: 0, versions.list().orEmpty().maxOfOrNull(::numberOf) ?: 0)
        val unpacked = versions.resolve("$number.tmp")
        try {
            Files.createDirectories(unpacked.toPath())
            onStep("folder made")
            val found = Unpacking(unpacked, mostBytes, onStep).unpack(zip)
            if (found != sha256) {
                throw EdgeleafException.InstallFailed(
                    "the zip has the SHA-256 $found, $sha256 is needed; fetch it again; the old index stays",
                )
            }
            onStep("hash compared")
            check(unpacked, space)
            onStep("index checked")
            syncFolder(unpacked)
            Files.move(unpacked.toPath(), folder(number).toPath(), ATOMIC_MOVE)
            syncFolder(versions)
            onStep("folder renamed")
            val next = root.resolve("current.tmp")
            FileOutputStream(next).use {
                it.write("$number $sha256\n".toByteArray())
                it.fd.sync()
            }
            onStep("pointer written")
            Files.move(next.toPath(), pointerFile.toPath(), ATOMIC_MOVE, REPLACE_EXISTING)
        } catch (error: Exception) {
            removeAllBut(old?.number)
            throw error
        }
        syncFolder(root)
        onStep("pointer switched")
        removeAllBut(number)
        onStep("old index removed")
        return current(space)
            ?: throw EdgeleafException.InstallFailed("somebody removed $pointerFile; install the index again")
    }

    /** Opens the unpacked index once, so that the store never switches to one that cannot be opened. */
    private fun check(unpacked: File, space: VectorSpace) {
        try {
            DocumentIndex.open(unpacked, space).close()
        } catch (error: EdgeleafException) {
            val message = error.message.orEmpty().replace("$unpacked", "the zip") + "; the old index stays"
            throw when (error) {
                is EdgeleafException.WrongSpace -> EdgeleafException.WrongSpace(message)
                is EdgeleafException.UnsupportedSchema -> EdgeleafException.UnsupportedSchema(message)
                else -> EdgeleafException.InstallFailed(message, error)
            }
        }
    }

    private fun folder(number: Int) = versions.resolve("$number")

    /** Reads which index is the current one; null if none was ever installed. */
    private fun pointer(): Pointer? {
        val text = try {
            if (!pointerFile.exists()) return null
            pointerFile.readText()
        } catch (error: IOException) {
            throw EdgeleafException.DamagedIndex("$pointerFile: ${reasonOf(error)}; install the index again", error)
        }
        val (number, sha256) = POINTER.matchEntire(text)?.destructured ?: return null
        return Pointer(number.toInt(), sha256)
    }

    /** Removes every version but one, including those whose install was killed. */
    private fun removeAllBut(number: Int?) {
        root.resolve("current.tmp").delete()
        for (version in versions.listFiles().orEmpty()) {
            if (version.name == number?.toString()) continue
            version.listFiles().orEmpty().forEach(File::delete)
            version.delete()
        }
    }

    /** Runs while no other thread or process installs into this folder. */
    private fun <T> exclusively(block: () -> T): T {
        Files.createDirectories(root.toPath())
        return locks.getOrPut(root.canonicalFile) { ReentrantLock() }.withLock {
            FileChannel.open(root.resolve("lock").toPath(), CREATE, WRITE).use { channel ->
                channel.lock().use { block() }
            }
        }
    }

    private companion object {
        const val DEFAULT_MOST_BYTES = 4L shl 30
        val SHA256 = Regex("[0-9a-f]{64}")
        val POINTER = Regex("([1-9][0-9]{0,8}) ([0-9a-f]{64})\n")

        /** One for each folder, because a file's lock keeps only other processes out. */
        val locks = ConcurrentHashMap<File, ReentrantLock>()

        fun numberOf(name: String): Int = name.removeSuffix(".tmp").toIntOrNull() ?: 0

        /** Makes the names in a folder survive a crash. Where nobody can ask for it (Windows), the system does it. */
        fun syncFolder(folder: File) {
            try {
                FileChannel.open(folder.toPath(), READ).use { it.force(true) }
            } catch (_: IOException) {
            }
        }
    }
}
