package io.github.edgeleaf

import java.util.concurrent.CancellationException
import java.util.concurrent.atomic.AtomicLong
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext

/**
 * A later [SemanticSearch.search] overtook this one, so nobody needs its hits any more.
 *
 * It is a [CancellationException]: a coroutine that does not catch it (`launch { show(search.search(text)) }`) just
 * ends. Nothing is reported, and neither its parent nor its siblings are cancelled. The calling coroutine itself is not
 * cancelled either. If it should go on, as in a loop that collects texts, catch this class and continue:
 *
 * ```
 * texts.collect { text ->
 *     try { show(search.search(text)) } catch (_: SearchOvertaken) { }
 * }
 * ```
 */
public class SearchOvertaken internal constructor() : CancellationException("a later search overtook this one")

/**
 * Search while people type: from a text to hits, off the caller's thread, and only for the latest text.
 *
 * Searches run one at a time on `Dispatchers.Default`. A new one overtakes all that are still waiting or running: they
 * end with [SearchOvertaken], and those that were waiting have cost nothing. Neither has a search whose coroutine is
 * cancelled while it waits.
 *
 * Make one for each search field: two fields that share one would overtake each other. It holds neither a thread nor
 * memory, and does not close the encoder, the index or the store.
 */
public class SemanticSearch internal constructor(
    private val encode: (String) -> FloatArray,
    private val index: () -> DocumentIndex,
) {
    /** Always searches this index, which must be of the encoder's space. */
    public constructor(encoder: QueryEncoder, index: DocumentIndex) : this(encoder::encode, { index }) {
        requireSameSpace(encoder.space, index.space, index.toString())
    }

    /** Searches the index that is installed in the store at the time of the search. */
    public constructor(encoder: QueryEncoder, store: IndexStore) : this(
        encoder::encode,
        {
            store.current(encoder.space) ?: throw EdgeleafException.NotAnIndex(
                "no index is installed in ${store.root}; call install first",
            )
        },
    )

    private val lane = Dispatchers.Default.limitedParallelism(1)
    private val latest = AtomicLong()

    /**
     * Finds the `k` documents nearest to a text, nearest first, as [DocumentIndex.search].
     *
     * @param text without the encoder's prompt.
     * @param k how many, from 1.
     * @throws SearchOvertaken a later call overtook this one; the class says what that means for the caller.
     * @throws EdgeleafException as [QueryEncoder.encode] and [DocumentIndex.search]; [EdgeleafException.NotAnIndex] if
     *   nothing is installed in the store yet, and all that [IndexStore.current] throws.
     * @throws IllegalArgumentException `k` is below 1; the searches before it go on.
     */
    public suspend fun search(text: String, k: Int = 10): List<Hit> {
        require(k >= 1) { "k is $k; a whole number from 1 is needed" }
        val number = latest.incrementAndGet()
        return withContext(lane) {
            continueIfLatest(number)
            val vector = encode(text)
            ensureActive()
            continueIfLatest(number)
            index().search(vector, k).also { continueIfLatest(number) }
        }
    }

    private fun continueIfLatest(number: Long) {
        if (latest.get() != number) throw SearchOvertaken()
    }
}
