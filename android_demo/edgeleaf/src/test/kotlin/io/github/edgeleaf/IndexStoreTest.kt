package io.github.edgeleaf

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.security.MessageDigest
import java.util.concurrent.Callable
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotSame
import org.junit.Assert.assertNull
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class IndexStoreTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val query = floatArrayOf(1f, 0f, 0f, 0f)
    private val one by lazy { zipOf(indexOf(1)) }
    private val two by lazy { zipOf(indexOf(2)) }
    private val root by lazy { temporary.newFolder() }

    /** An index of so many documents, which tells it from others. */
    private fun indexOf(documents: Int): File =
        writeIndex(temporary.newFolder(), List(documents) { FloatArray(4) { 0.5f } }, 4)

    private fun IndexStore.install(zip: ByteArray) = install(zip.inputStream(), sha256(zip), small)

    /** How many documents the installed index has, found by a search in it; null if there is none. */
    private fun installed(store: IndexStore = IndexStore(root)): Int? = store.current(small)?.search(query)?.size

    private fun versions(): List<String> = root.resolve("versions").list().orEmpty().sorted()

    @Test
    fun `installs, replaces, and removes the old one`() {
        val store = IndexStore(root)
        assertNull(store.current(small))
        assertEquals(1, store.install(one).size)
        assertEquals(1, installed(store))
        assertEquals(2, store.install(two).size)
        assertEquals(2, installed(store))
        assertEquals(2, installed(IndexStore(root)))
        assertEquals(listOf("2"), versions())
        assertEquals(listOf("current", "lock", "versions"), root.list().orEmpty().sorted())
    }

    @Test
    fun `a file is installed as a stream is`() {
        val file = temporary.newFile().apply { writeBytes(one) }
        assertEquals(1, IndexStore(root).install(file, sha256(one).uppercase(), small).size)
        val missing = File("/no/such.zip")
        val error = assertThrows(EdgeleafException.InstallFailed::class.java) {
            IndexStore(root).install(missing, sha256(two), small)
        }
        assertTrue("${error.message}", "${error.message}".startsWith("$missing cannot be read: "))
        assertEquals(1, installed())
    }

    @Test
    fun `the same index is not installed again`() {
        val store = IndexStore(root)
        val index = store.install(one)
        val unread = object : InputStream() {
            override fun read(): Int = error("nobody needs this stream")
        }
        assertSame(index, store.install(unread, sha256(one), small))
        assertEquals(listOf("1"), versions())
    }

    @Test
    fun `the open index stays the same one until it is replaced or closed`() {
        val store = IndexStore(root)
        val index = store.install(one)
        assertSame(index, store.current(small))
        index.close()
        assertNotSame(index, store.current(small))
        assertEquals(1, installed(store))
    }

    @Test
    fun `another store sees what was installed`() {
        val store = IndexStore(root)
        store.install(one)
        IndexStore(root).install(two)
        assertEquals(2, installed(store))
    }

    @Test
    fun `who holds the old index keeps it`() {
        val store = IndexStore(root)
        val old = store.install(one)
        val before = old.search(query)
        store.install(two)
        assertFalse(root.resolve("versions/1").exists())
        assertEquals(before, old.search(query))
    }

    @Test
    fun `an install does not disturb searches`() {
        val store = IndexStore(root)
        store.install(one)
        val done = CountDownLatch(1)
        val pool = Executors.newFixedThreadPool(4)
        try {
            val searches = List(4) { thread ->
                pool.submit(
                    Callable {
                        val seen = HashSet<Int?>()
                        while (done.count > 0) {
                            val found = installed(if (thread < 2) store else IndexStore(root)) // which opens it anew
                            assertTrue("$found", found == 1 || found == 2)
                            seen.add(found)
                        }
                        seen
                    },
                )
            }
            repeat(100) { store.install(if (it % 2 == 0) two else one) }
            done.countDown()
            assertEquals(setOf(1, 2), searches.flatMap { it.get() }.toSet())
        } finally {
            pool.shutdown()
        }
        assertEquals(listOf("101"), versions())
    }

    @Test
    fun `installs at the same time leave one whole index`() {
        val pool = Executors.newFixedThreadPool(4)
        try {
            pool.invokeAll(
                List(4) { thread ->
                    Callable { repeat(5) { IndexStore(root).install(if (thread % 2 == 0) one else two) } }
                },
            ).forEach { it.get() }
        } finally {
            pool.shutdown()
        }
        assertEquals(1, versions().size)
        assertTrue(installed() in 1..2)
    }

    @Test
    fun `installs of several processes at the same time leave one whole index`() {
        val zips = listOf(one, two).map { zip -> temporary.newFile().apply { writeBytes(zip) } }
        val processes = List(6) { process(root, zips[it % 2], sha256(zips[it % 2].readBytes()), "never") }
        repeat(50) { IndexStore(root).install(if (it % 2 == 0) one else two) }
        assertEquals(List(6) { 0 }, processes.map { it.waitFor() })
        assertEquals(1, versions().size)
        assertTrue(installed() in 1..2)
    }

    @Test
    fun `an install that is killed at any step leaves the old index or none, and the next one works`() {
        val zip = temporary.newFile().apply { writeBytes(two) }
        val steps = steps()
        assertEquals(listOf("pointer switched", "old index removed"), steps.takeLast(2))
        for (step in steps) {
            for (old in listOf(one, null)) {
                root.listFiles().orEmpty().forEach { it.deleteRecursively() }
                old?.let { IndexStore(root).install(it) }
                assertEquals(step, KILLED, process(root, zip, sha256(two), step).waitFor())
                val expected = if (step in steps.takeLast(2)) 2 else old?.let { 1 }
                assertEquals("killed at: $step", expected, installed())
                assertEquals(3, IndexStore(root).install(zipOf(indexOf(3))).size)
                assertEquals("left over after: $step", 1, versions().size)
                assertFalse(root.resolve("current.tmp").exists())
            }
        }
    }

    @Test
    fun `what a killed install left is removed before the next one needs room`() {
        IndexStore(root).install(one)
        val zip = temporary.newFile().apply { writeBytes(two) }
        for (step in listOf("vectors.npy on disk", "folder renamed")) {
            assertEquals(KILLED, process(root, zip, sha256(two), step).waitFor())
            assertTrue("${versions()}", versions().size == 2)
            var found = emptyList<String>()
            IndexStore(root, 1L shl 20) { if (it == "left-overs removed") found = versions() }.let { store ->
                assertThrows(EdgeleafException.InstallFailed::class.java) { store.install(two.copyOf(9)) }
            }
            assertEquals(listOf("1"), found)
        }
    }

    @Test
    fun `an install that fails at any step leaves the old index and nothing else`() {
        IndexStore(root).install(one)
        val before = root.walk().map { it.path }.toSet()
        for (step in steps() - listOf("pointer switched", "old index removed")) {
            val store = IndexStore(root, 1L shl 20) { if (it == step) throw IOException("the disk is full") }
            val error = assertThrows(step, EdgeleafException.InstallFailed::class.java) { store.install(two) }
            assertEquals(
                "the index could not be installed in $root: the disk is full; the old index stays", error.message,
            )
            assertEquals(step, before, root.walk().map { it.path }.toSet())
            assertEquals(1, installed(store))
        }
    }

    @Test
    fun `a zip that is cut off anywhere is refused`() {
        IndexStore(root).install(one)
        for (length in 0 until two.size step 7) {
            val cut = two.copyOf(length)
            assertThrows(EdgeleafException.InstallFailed::class.java) {
                IndexStore(root).install(cut.inputStream(), sha256(two), small)
            }
        }
        assertEquals(1, installed())
        assertEquals(listOf("1"), versions())
    }

    @Test
    fun `another hash is refused`() {
        IndexStore(root).install(one)
        val wrong = sha256(one)
        val error = assertThrows(EdgeleafException.InstallFailed::class.java) {
            IndexStore(temporary.newFolder()).install(two.inputStream(), wrong, small)
        }
        assertEquals(
            "the zip has the SHA-256 ${sha256(two)}, $wrong is needed; fetch it again; the old index stays",
            error.message,
        )
        val changed = two.clone().also { it[it.size - 1] = 1 } // in the table of contents, behind the files
        assertThrows(EdgeleafException.InstallFailed::class.java) {
            IndexStore(root).install(changed.inputStream(), sha256(two), small)
        }
        for (no in listOf("", "abc", "g".repeat(64), sha256(two) + "0")) {
            val refused = assertThrows(EdgeleafException.InstallFailed::class.java) {
                IndexStore(root).install(two.inputStream(), no, small)
            }
            assertTrue("${refused.message}", "64 hexadecimal digits are needed" in "${refused.message}")
        }
        assertEquals(1, installed())
    }

    @Test
    fun `names that do not belong to an index are refused and write nothing`() {
        val outside = temporary.newFolder()
        val names = listOf(
            "../index.json", "../../index.json", "/index.json", "${outside.path}/index.json", "index/index.json",
            "..\\index.json", "C:\\index.json", "./index.json", "index.json/", "INDEX.JSON", "run.sh", "", "\u0000",
            "index.json\u0000", "vectors.npy/../../x",
        )
        IndexStore(root).install(one)
        for (name in names) {
            val zip = zip(name to byteArrayOf(1))
            val before = temporary.root.walk().count()
            assertThrows(name, EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(zip) }
            assertEquals(name, before, temporary.root.walk().count())
        }
        assertEquals(1, installed())
        assertEquals(0, outside.list().orEmpty().size)
        val error = assertThrows(EdgeleafException.InstallFailed::class.java) {
            IndexStore(root).install(zip("a.txt" to ByteArray(1)))
        }
        assertEquals(
            "the zip holds \"a.txt\"; it may hold index.json, vectors.npy, documents.jsonl, pca.npy, at its top, and " +
                "nothing else; the old index stays",
            error.message,
        )
    }

    @Test
    fun `a name that comes twice is refused`() {
        val index = indexOf(2)
        val entries = index.listFiles().orEmpty().map { it.name to it.readBytes() } + ("vectors.npX" to ByteArray(1))
        val twice = String(zip(*entries.toTypedArray()), Charsets.ISO_8859_1).replace("vectors.npX", VECTORS_FILE)
            .toByteArray(Charsets.ISO_8859_1)
        val error = assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(twice) }
        assertEquals("the zip holds vectors.npy twice; the old index stays", error.message)
    }

    @Test
    fun `a link is never made`() {
        val secret = temporary.newFile().apply { writeText("secret") }
        val index = indexOf(2)
        val entries = index.listFiles().orEmpty().map { file ->
            file.name to if (file.name == VECTORS_FILE) secret.path.toByteArray() else file.readBytes()
        }
        val zip = zip(*entries.toTypedArray())
        val mark = "PK\u0001\u0002"
        val table = zip.indices.filter { String(zip, it, minOf(4, zip.size - it), Charsets.ISO_8859_1) == mark }
        assertEquals(3, table.size)
        for (place in table) {
            if (String(zip, place + 46, 11) != VECTORS_FILE) continue
            zip[place + 5] = 3 // made on Unix,
            zip[place + 41] = 0xa1.toByte() // a symbolic link
            zip[place + 40] = 0xff.toByte()
        }
        val error = assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(zip) }
        assertEquals(
            "the zip: damaged index (vectors.npy: not a .npy file); make or install it again; the old index stays",
            error.message,
        )
        assertTrue(root.walk().none { Files.isSymbolicLink(it.toPath()) })
    }

    @Test
    fun `bombs are refused`() {
        val zeros = zip(VECTORS_FILE to ByteArray(50_000_000))
        assertTrue(zeros.size < 100_000)
        val size = assertThrows(EdgeleafException.InstallFailed::class.java) {
            IndexStore(root, 1_000_000).install(zeros)
        }
        assertEquals(
            "the zip holds an index of more than 1000000 bytes; IndexStore takes another limit; the old index stays",
            size.message,
        )
        val many = zip(*Array(20_000) { "f$it" to ByteArray(0) })
        val count = assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(many) }
        assertTrue("${count.message}", "holds \"f0\"" in "${count.message}")
        val long = two + ByteArray(2_000_000)
        val rest = assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(long) }
        assertTrue("${rest.message}", "more than 1048576 bytes behind its last file" in "${rest.message}")
        for (no in listOf(ByteArray(0), "<html>not found</html>".toByteArray(), zip())) {
            val empty = assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(root).install(no) }
            assertEquals("the zip is no zip file, or an empty one; the old index stays", empty.message)
        }
        assertEquals(emptyList<String>(), versions())
    }

    @Test
    fun `what cannot be opened is not switched to`() {
        val store = IndexStore(root)
        store.install(one)
        val cut = indexOf(2).apply { resolve(VECTORS_FILE).let { it.writeBytes(it.readBytes().copyOf(140)) } }
        val damaged = assertThrows(EdgeleafException.InstallFailed::class.java) { store.install(zipOf(cut)) }
        val why = "the zip: damaged index (vectors.npy: 140 bytes; 144 are needed)"
        assertTrue("${damaged.message}", why in "${damaged.message}")
        val headless = indexOf(2).apply { resolve(HEADER_FILE).delete() }
        assertThrows(EdgeleafException.InstallFailed::class.java) { store.install(zipOf(headless)) }
        val newer = indexOf(2).apply {
            resolve(HEADER_FILE).let { it.writeText(it.readText().replace("on\": 2", "on\": 3")) }
        }
        assertThrows(EdgeleafException.UnsupportedSchema::class.java) { store.install(zipOf(newer)) }
        val other = space("weights_sha256" to "60")
        val wrong = assertThrows(EdgeleafException.WrongSpace::class.java) {
            store.install(two.inputStream(), sha256(two), other)
        }
        assertTrue("${wrong.message}", "$other" in "${wrong.message}" && "$small" in "${wrong.message}")
        assertEquals(1, installed(store))
        assertEquals(listOf("1"), versions())
    }

    @Test
    fun `an index of another space is refused, and replaced by one of the right space`() {
        val store = IndexStore(root)
        store.install(one)
        val other = space("dim" to 5L)
        assertThrows(EdgeleafException.WrongSpace::class.java) { store.current(other) }
        assertThrows(EdgeleafException.WrongSpace::class.java) { IndexStore(root).current(other) }
        val zip = zipOf(writeIndex(temporary.newFolder(), List(2) { FloatArray(5) { 0.5f } }, 5))
        assertEquals(2, store.install(zip.inputStream(), sha256(zip), other).size)
        assertEquals(2, store.current(other)?.size)
    }

    @Test
    fun `an index that was damaged on disk is reported, and the same one repairs it`() {
        IndexStore(root).install(one)
        root.resolve("versions/1/$VECTORS_FILE").delete()
        val error = assertThrows(EdgeleafException.DamagedIndex::class.java) { IndexStore(root).current(small) }
        assertTrue("${error.message}", "vectors.npy: no such file" in "${error.message}")
        assertEquals(1, IndexStore(root).install(one).size)
        root.resolve("versions").deleteRecursively()
        assertThrows(EdgeleafException.NotAnIndex::class.java) { IndexStore(root).current(small) }
        assertEquals(1, IndexStore(root).install(one).size)
        for (text in listOf("", "../1 ${sha256(one)}\n", "1\n", "99999999999 ${sha256(one)}\n")) {
            root.resolve("current").writeText(text)
            assertNull(IndexStore(root).current(small))
        }
        assertEquals(1, IndexStore(root).install(one).size)
    }

    @Test
    fun `a folder that cannot be made is an exception`() {
        val file = temporary.newFile()
        assertThrows(EdgeleafException.InstallFailed::class.java) { IndexStore(file).install(one) }
        assertNull(IndexStore(file).current(small))
    }

    /** The steps of an install that replaces another. */
    private fun steps(): List<String> {
        val folder = temporary.newFolder()
        IndexStore(folder).install(one)
        val steps = ArrayList<String>()
        IndexStore(folder, 1L shl 20, steps::add).install(two)
        assertEquals(steps.size, steps.toSet().size)
        assertTrue("$steps", steps.size >= 12)
        return steps
    }

    /** A process that installs, and is killed at a step, if there is such a step. */
    private fun process(root: File, zip: File, sha256: String, step: String): Process {
        val java = File(System.getProperty("java.home"), "bin/java").path
        return ProcessBuilder(
            java, "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"),
            InstallingProcess::class.java.name, root.path, zip.path, sha256, step,
        ).inheritIO().start()
    }
}

private const val KILLED = 77

/** A process that installs an index and may die in the middle, without any clean-up. */
internal object InstallingProcess {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val (root, zip, sha256, step) = arguments
        IndexStore(File(root), 1L shl 20) { if (it == step) Runtime.getRuntime().halt(KILLED) }
            .install(File(zip), sha256, small)
    }
}

internal fun sha256(bytes: ByteArray): String = hexadecimal(MessageDigest.getInstance("SHA-256").digest(bytes))

/** A zip file with a folder's files at its top. */
internal fun zipOf(folder: File): ByteArray =
    zip(*folder.listFiles().orEmpty().sorted().map { it.name to it.readBytes() }.toTypedArray())

internal fun zip(vararg entries: Pair<String, ByteArray>): ByteArray {
    val out = ByteArrayOutputStream()
    ZipOutputStream(out).use { zip ->
        for ((name, data) in entries) {
            zip.putNextEntry(ZipEntry(name))
            zip.write(data)
        }
    }
    return out.toByteArray()
}
