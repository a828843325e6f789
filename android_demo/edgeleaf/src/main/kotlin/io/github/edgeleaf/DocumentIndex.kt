package io.github.edgeleaf

import java.io.File
import kotlin.math.sqrt

/**
 * A document that was found.
 *
 * @property id as it was indexed.
 * @property text as it was indexed.
 * @property score cosine to the query, computed from the index's vectors; between -1 and 1, up to rounding.
 */
public class Hit(public val id: String, public val text: String, public val score: Float) {
    override fun equals(other: Any?): Boolean =
        other is Hit && id == other.id && text == other.text && score.toRawBits() == other.score.toRawBits()

    override fun hashCode(): Int = 31 * id.hashCode() + score.toRawBits()

    override fun toString(): String = "Hit(id=$id, score=$score, text=${shown(text)})"
}

/**
 * Documents that a server encoded with the teacher: the folder that `edgeleaf index` writes, with or without `--pca`.
 *
 * Vectors and texts stay on disk, mapped into memory; the heap holds only 12 bytes per document. A search reads all
 * vectors, so it is exact: about 13 ms for 100,000 documents of 256 numbers on a server's processor. All methods may be
 * called from several threads at once; none belongs on Android's main thread, see [SemanticSearch].
 *
 * Nothing may change the folder's files while they are open: a file that is cut short crashes the process. Deleting
 * them is harmless on Android and Linux. [IndexStore] replaces an index safely.
 *
 * @property space the vector space of the documents.
 * @property size how many documents there are.
 */
public class DocumentIndex private constructor(
    private val folder: File,
    public val space: VectorSpace,
    public val size: Int,
    private val dims: Int,
    opened: Opened,
) : AutoCloseable {

    private class Opened(val vectors: Mapped, val documents: Documents, val pca: FloatArray?)

    @Volatile
    private var opened: Opened? = opened

    internal val isClosed: Boolean get() = opened == null

    /**
     * Finds the `k` documents nearest to a query, nearest first; of equal scores, the document that was indexed first
     * comes first. The search is exact, with the ids and scores of Python's `Index.search`.
     *
     * @param vector `space.dim` numbers of unit L2 norm, from [QueryEncoder.encode]; an index with shortened vectors
     *   shortens it itself.
     * @param k how many, from 1; if the index has fewer documents, all are returned.
     * @throws EdgeleafException.InvalidVector the vector has another width, or numbers that are not finite or far too
     *   large.
     * @throws EdgeleafException.DamagedIndex a part of a large index is damaged that was not checked at opening.
     * @throws EdgeleafException.Closed the index was closed.
     * @throws IllegalArgumentException `k` is below 1.
     */
    @JvmOverloads
    public fun search(vector: FloatArray, k: Int = 10): List<Hit> {
        require(k >= 1) { "k is $k; a whole number from 1 is needed" }
        val here = opened ?: throw EdgeleafException.Closed("the index $folder is closed; open it again")
        if (vector.size != space.dim) {
            throw EdgeleafException.InvalidVector(
                "a query vector of ${vector.size} numbers; ${space.dim} are needed, as encode returns them",
            )
        }
        if (!vector.all { it.isFinite() }) {
            throw EdgeleafException.InvalidVector("the query vector holds numbers that are not finite; encode it again")
        }
        val query = here.pca?.let { shortened(vector, it, dims) } ?: vector
        val found = try {
            topK(here.vectors, size, query, k)
        } catch (fault: NotFiniteScore) {
            if (!fault.rowIsFinite) throw notFinite(folder, VECTORS_FILE, fault.row)
            throw EdgeleafException.InvalidVector(
                "the query vector's numbers are so large that a score is not finite; a unit vector is needed",
            )
        }
        return found.rows.indices.map { place ->
            val (id, text) = here.documents.read(found.rows[place])
            Hit(id, text, found.scores[place])
        }
    }

    /**
     * Ends the use of the index. A search that is running in another thread is completed; later ones fail with
     * [EdgeleafException.Closed]. Closing twice does no harm. The garbage collector unmaps the files.
     */
    override fun close() {
        opened = null
    }

    override fun toString(): String = "DocumentIndex($folder, documents=$size, space=$space)"

    public companion object {
        /**
         * Opens an index. Reads all of `documents.jsonl` once, and `vectors.npy` if it has at most 64 MB.
         *
         * @param folder what `edgeleaf index` wrote.
         * @param space the space of the queries: [QueryEncoder.space].
         * @throws EdgeleafException.NotAnIndex there is no such folder, or no index in it.
         * @throws EdgeleafException.WrongSpace the documents are of another space; the message names both.
         * @throws EdgeleafException.DamagedIndex a file is damaged; the message names it.
         * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
         */
        @JvmStatic
        public fun open(folder: File, space: VectorSpace): DocumentIndex {
            if (!folder.isDirectory) {
                val kind = if (folder.exists()) "is a file, not the folder of an index" else "no such index folder"
                throw EdgeleafException.NotAnIndex("$folder: $kind; make one with: edgeleaf index")
            }
            if (!folder.resolve(HEADER_FILE).exists()) {
                throw EdgeleafException.NotAnIndex(
                    "$folder is not an index: it has no $HEADER_FILE; make one with: edgeleaf index",
                )
            }
            val header = readHeader(folder)
            requireSameSpace(space, header.space, folder.toString())
            val documents = Documents(folder)
            if (documents.size != header.documents) {
                throw damaged(
                    folder, DOCUMENTS_FILE, "${documents.size} documents; $HEADER_FILE has ${header.documents}",
                )
            }
            val vectors = openHalves(folder, VECTORS_FILE, header.documents, header.dims)
            val pca = if (header.dims == header.space.dim) null else {
                readFloats(folder, PCA_FILE, header.space.dim, header.dims)
            }
            return DocumentIndex(
                folder, header.space, header.documents, header.dims, Opened(vectors, documents, pca),
            )
        }
    }
}

internal fun requireSameSpace(queries: VectorSpace, documents: VectorSpace, name: String) {
    if (!queries.sameAs(documents)) {
        throw EdgeleafException.WrongSpace(
            "$name: queries of the space $queries cannot search an index of the space $documents; " +
                "encode them with a bundle of that space, or index the documents again",
        )
    }
}

/** Shortens a vector along the documents' principal axes, float32 [vector.size, dims], and normalises it again. */
private fun shortened(vector: FloatArray, pca: FloatArray, dims: Int): FloatArray {
    val sums = DoubleArray(dims)
    for (i in vector.indices) {
        val number = vector[i].toDouble()
        val row = i * dims
        for (j in 0 until dims) sums[j] += number * pca[row + j]
    }
    val norm = maxOf(sqrt(sums.sumOf { it * it }), 1e-12)
    return FloatArray(dims) { (sums[it] / norm).toFloat() }
}
