package io.github.edgeleaf

import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineExceptionHandler
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart.UNDISPATCHED
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.isActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.supervisorScope
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class SemanticSearchTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val encoder = Fixtures.encoder
    private val index = DocumentIndex.open(Fixtures.file("index"), encoder.space)
    private val expected = index.search(encoder.encode("parcel"), 3)

    /** An index that each search waits for, after its text was encoded. */
    private class Gate(private val index: DocumentIndex) : () -> DocumentIndex {
        val arrived = CountDownLatch(1)
        val open = CountDownLatch(1)
        val passed = AtomicInteger()
        val threads = CopyOnWriteArrayList<String>()

        override fun invoke(): DocumentIndex {
            passed.incrementAndGet()
            threads.add(Thread.currentThread().name)
            arrived.countDown()
            open.await()
            return index
        }
    }

    @Test
    fun `from a text to hits, away from the caller's thread`() = runBlocking {
        val gate = Gate(index).apply { open.countDown() }
        assertEquals(expected, SemanticSearch(encoder, index).search("parcel", 3))
        assertEquals(10, SemanticSearch(encoder, index).search("parcel").size)
        assertEquals(expected, SemanticSearch(encoder::encode, gate).search("parcel", 3))
        assertNotEquals(Thread.currentThread().name, gate.threads.single())
    }

    @Test
    fun `the latest search wins and waiting ones cost nothing`(): Unit = runBlocking {
        val gate = Gate(index)
        val search = SemanticSearch(encoder::encode, gate)
        supervisorScope {
            val running = async(start = UNDISPATCHED) { search.search("first", 3) }
            gate.arrived.await()
            // Encoding such a text would be another error.
            val waiting = List(50) { async(start = UNDISPATCHED) { search.search("\ud83d", 3) } }
            val latest = async(start = UNDISPATCHED) { search.search("parcel", 3) }
            gate.open.countDown()
            assertEquals(expected, latest.await())
            for (overtaken in waiting + running) {
                val error = runCatching { overtaken.await() }.exceptionOrNull()
                assertEquals(SearchOvertaken::class.java, error?.javaClass)
                assertEquals("a later search overtook this one", error?.message)
            }
            assertEquals("only the first and the latest reach the index", 2, gate.passed.get())
        }
    }

    @Test
    fun `an overtaken search ends its own coroutine, and nothing else`() = runBlocking {
        val gate = Gate(index)
        val search = SemanticSearch(encoder::encode, gate)
        val reported = CopyOnWriteArrayList<Throwable>()
        val parent = Job()
        val handler = CoroutineExceptionHandler { _, error -> reported.add(error) }
        val scope = CoroutineScope(Dispatchers.Default + parent + handler)
        val shown = CopyOnWriteArrayList<List<Hit>>()
        val overtaken = scope.launch(start = UNDISPATCHED) { shown.add(search.search("first", 3)) }
        gate.arrived.await()
        val latest = scope.launch(start = UNDISPATCHED) { shown.add(search.search("parcel", 3)) }
        gate.open.countDown()
        overtaken.join()
        latest.join()
        assertEquals(listOf(expected), shown)
        assertTrue("the scope goes on", scope.isActive && parent.isActive)
        assertFalse("its sibling was not cancelled", latest.isCancelled)
        assertEquals(emptyList<Throwable>(), reported)
        parent.cancel()
    }

    @Test
    fun `a caller that catches it goes on`() = runBlocking {
        val gate = Gate(index)
        val search = SemanticSearch(encoder::encode, gate)
        val caller = async(Dispatchers.Default) {
            try {
                search.search("first", 3)
            } catch (_: SearchOvertaken) {
                assertTrue("the coroutine is not cancelled", isActive)
            }
            search.search("parcel", 3)
        }
        gate.arrived.await()
        val second = async(start = UNDISPATCHED) { runCatching { search.search("second") } }
        gate.open.countDown()
        assertEquals(expected, caller.await())
        second.await().exceptionOrNull()?.let { assertTrue("$it", it is SearchOvertaken) }
        Unit
    }

    @Test
    fun `a search that is cancelled while it waits costs nothing`() = runBlocking {
        val gate = Gate(index)
        val search = SemanticSearch(encoder::encode, gate)
        supervisorScope {
            val running = async(start = UNDISPATCHED) { search.search("first") }
            gate.arrived.await()
            val waiting = async(start = UNDISPATCHED) { search.search("parcel") }
            waiting.cancel()
            gate.open.countDown()
            waiting.join()
            val error = runCatching { waiting.await() }.exceptionOrNull()
            assertTrue("$error", error is CancellationException && error !is SearchOvertaken)
            runCatching { running.await() }
            assertEquals(1, gate.passed.get())
        }
        assertEquals("the next one works", expected, search.search("parcel", 3))
    }

    @Test
    fun `a search that is overtaken or cancelled while it encodes does not look into the index`() = runBlocking {
        val arrived = CountDownLatch(2)
        val open = List(2) { CountDownLatch(1) }
        val searches = AtomicInteger()
        val search = SemanticSearch(
            { text ->
                arrived.countDown()
                if (text != "parcel") open[text.toInt()].await()
                encoder.encode(text)
            },
            { index.also { searches.incrementAndGet() } },
        )
        supervisorScope {
            val overtaken = async(start = UNDISPATCHED) { search.search("0") }
            while (arrived.count == 2L) Thread.yield()
            val cancelled = async(start = UNDISPATCHED) { search.search("1") }
            open[0].countDown()
            assertTrue(runCatching { overtaken.await() }.exceptionOrNull() is SearchOvertaken)
            arrived.await()
            cancelled.cancel()
            open[1].countDown()
            cancelled.join()
            assertEquals(0, searches.get())
            assertEquals(expected, search.search("parcel", 3))
            assertEquals(1, searches.get())
        }
    }

    @Test
    fun `an error reaches its caller and the next search works`() = runBlocking {
        val search = SemanticSearch(encoder, index)
        assertThrows(EdgeleafException.InvalidText::class.java) { runBlocking { search.search("\ud83d") } }
        assertEquals(expected, search.search("parcel", 3))
    }

    @Test
    fun `no hits are refused, and overtake nothing`() = runBlocking {
        val gate = Gate(index)
        val search = SemanticSearch(encoder::encode, gate)
        val running = async(start = UNDISPATCHED) { search.search("parcel", 3) }
        gate.arrived.await()
        assertThrows(IllegalArgumentException::class.java) { runBlocking { search.search("parcel", 0) } }
        gate.open.countDown()
        assertEquals(expected, running.await())
    }

    @Test
    fun `an index of another space is refused at once`() {
        val other = DocumentIndex.open(writeIndex(temporary.newFolder(), emptyList(), 4), small)
        assertThrows(EdgeleafException.WrongSpace::class.java) { SemanticSearch(encoder, other) }
    }

    @Test
    fun `what is installed at the time is searched`() = runBlocking {
        val store = IndexStore(temporary.newFolder())
        val search = SemanticSearch(encoder, store)
        val error = assertThrows(EdgeleafException.NotAnIndex::class.java) { runBlocking { search.search("parcel") } }
        assertEquals("no index is installed in ${store.root}; call install first", error.message)
        for (name in listOf("index", "index-pca")) {
            val zip = zipOf(Fixtures.file(name))
            store.install(zip.inputStream(), sha256(zip), encoder.space)
            val there = DocumentIndex.open(Fixtures.file(name), encoder.space).search(encoder.encode("parcel"))
            assertEquals(there, search.search("parcel"))
        }
    }

    @Test
    fun `a closed encoder or index is an exception`() = runBlocking {
        val closed = QueryEncoder.open(Fixtures.model).apply { close() }
        assertThrows(EdgeleafException.Closed::class.java) {
            runBlocking { SemanticSearch(closed, index).search("parcel") }
        }
        val search = SemanticSearch(encoder, index)
        index.close()
        assertThrows(EdgeleafException.Closed::class.java) { runBlocking { search.search("parcel") } }
        Unit
    }
}
