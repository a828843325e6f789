package io.github.edgeleaf

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File
import java.nio.Buffer
import java.nio.ByteBuffer
import java.util.concurrent.locks.ReentrantReadWriteLock
import kotlin.concurrent.read
import kotlin.concurrent.write

/**
 * Encodes queries: a string goes in, a unit vector in the teacher's space comes out. Prompt, tokenizer and pooling are
 * inside the file; do not add anything to the text.
 *
 * Opening takes some tenths of a second and about 100 MB of memory, so open one, off the main thread, and keep it: in
 * an Android app in the `Application`, not in an activity. All methods may be called from several threads at once. One
 * call takes some milliseconds: do not call it on Android's main thread, see [SemanticSearch].
 *
 * ```
 * QueryEncoder.open(File("query_encoder.onnx")).use { encoder ->
 *     val vector = encoder.encode("where is my parcel?")
 * }
 * ```
 *
 * @property space the vector space; only documents of this space may be searched.
 * @property window how many tokens of a text are read; the rest is cut off.
 */
public class QueryEncoder private constructor(
    private val session: OrtSession,
    public val space: VectorSpace,
    public val window: Int,
    private val longTexts: LongTexts?,
    private val name: String,
) : AutoCloseable {

    private val lock = ReentrantReadWriteLock()
    private var closed = false

    /**
     * Encodes one text.
     *
     * @return `space.dim` numbers of unit L2 norm, equal to Python's on this kind of processor to the last bit.
     * @throws EdgeleafException.InvalidText the text holds half a surrogate pair.
     * @throws EdgeleafException.Closed the encoder is closed.
     * @throws EdgeleafException.EncodingFailed onnxruntime failed.
     */
    public fun encode(text: String): FloatArray = encode(listOf(text)).single()

    /**
     * Encodes texts. A text's vector does not depend on the others.
     *
     * @return a vector for each text, in the order of the texts, as from the other [encode]; an empty list for none.
     * @throws EdgeleafException.InvalidText a text holds half a surrogate pair; the message gives its place, from 0.
     * @throws EdgeleafException.Closed the encoder is closed.
     * @throws EdgeleafException.EncodingFailed onnxruntime failed.
     */
    public fun encode(texts: List<String>): List<FloatArray> {
        val checked = texts.mapIndexed(::checked)
        val lengths = IntArray(checked.size) { checked[it].codePointCount(0, checked[it].length) }
        val vectors = arrayOfNulls<FloatArray>(checked.size)
        lock.read {
            if (closed) throw EdgeleafException.Closed("the encoder of $name is closed; open it again")
            for (batch in batches(lengths)) {
                val found = run(batch.map { checked[it].encodeToByteArray() })
                batch.forEachIndexed { row, place ->
                    vectors[place] = found.copyOfRange(row * space.dim, (row + 1) * space.dim)
                }
            }
        }
        return vectors.map { it!! }
    }

    /**
     * Frees the model's memory. Waits for the calls that are running in other threads; later ones fail with
     * [EdgeleafException.Closed]. Closing twice does no harm.
     */
    override fun close(): Unit = lock.write {
        if (!closed) {
            closed = true
            session.close()
        }
    }

    override fun toString(): String = "QueryEncoder(space=$space)"

    private fun checked(place: Int, text: String?): String {
        if (text == null) throw EdgeleafException.InvalidText("text $place is null; every text must be a string")
        if (!isText(text)) {
            throw EdgeleafException.InvalidText(
                "text $place holds half a surrogate pair, which is not text; replace it with U+FFFD first",
            )
        }
        return longTexts?.shortened(text) ?: text
    }

    /** Runs one batch of texts in UTF-8; returns their vectors one after the other. */
    private fun run(texts: List<ByteArray>): FloatArray {
        val width = texts.maxOf { it.size }
        if (width.toLong() * texts.size > Int.MAX_VALUE) {
            throw EdgeleafException.EncodingFailed("a text of $width bytes is too long; cut it before it is encoded")
        }
        val rows = ByteBuffer.allocateDirect(width * texts.size)
        for (text in texts) {
            rows.put(text)
            repeat(width - text.size) { rows.put(FILLER) }
        }
        rows.atStart()
        try {
            val shape = longArrayOf(texts.size.toLong(), width.toLong())
            OnnxTensor.createTensor(environment, rows, shape, OnnxJavaType.UINT8).use { tensor ->
                session.run(mapOf(INPUT to tensor), setOf(OUTPUT)).use { result ->
                    val found = (result[0] as OnnxTensor).floatBuffer
                    if (found.remaining() != texts.size * space.dim) {
                        throw EdgeleafException.EncodingFailed(
                            "$name gives ${found.remaining() / texts.size} numbers a text and says ${space.dim}; " +
                                "build or copy it again",
                        )
                    }
                    return FloatArray(found.remaining()).also { found.get(it) }
                }
            }
        } catch (error: OrtException) {
            throw EdgeleafException.EncodingFailed("$name: onnxruntime cannot encode: ${reasonOf(error)}", error)
        }
    }

    public companion object {
        private const val INPUT = "utf8"
        private const val STRING_INPUT = "text"
        private const val OUTPUT = "embedding"
        private const val FILLER = 0xff.toByte() // UTF-8 never holds this byte
        private const val SCHEMA_VERSION = "1"
        private val environment: OrtEnvironment by lazy {
            OrtEnvironment.getEnvironment().also { it.setTelemetry(false) }
        }

        /**
         * Opens a `query_encoder.onnx` that takes UTF-8 bytes, as `edgeleaf ship BUNDLE --input utf8` writes it.
         *
         * @param file the file; it may be deleted afterwards.
         * @param threads processor threads that one call may use, from 1.
         * @throws EdgeleafException.NotAnEncoder there is no such file, or it is damaged, is another model, or takes
         *   strings.
         * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
         * @throws IllegalArgumentException `threads` is below 1.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(file: File, threads: Int = 1): QueryEncoder {
            if (file.isDirectory) {
                throw EdgeleafException.NotAnEncoder("$file is a folder; give the query_encoder.onnx in it")
            }
            if (!file.isFile) {
                throw EdgeleafException.NotAnEncoder("$file: no such file; give a query_encoder.onnx of edgeleaf")
            }
            return open(file.toString(), threads) { environment.createSession(file.path, it) }
        }

        /**
         * Opens an encoder from memory, for instance from a mapped asset, without a copy in the Java heap.
         *
         * @param model the bytes of the file, from the buffer's position to its limit; best a direct buffer. It is not
         *   used after this call.
         * @param name what messages call the file.
         * @param threads processor threads that one call may use, from 1.
         * @throws EdgeleafException.NotAnEncoder it is damaged, is another model, or takes strings.
         * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
         * @throws IllegalArgumentException `threads` is below 1.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(model: ByteBuffer, name: String = "the model", threads: Int = 1): QueryEncoder {
            if (!model.hasRemaining()) throw EdgeleafException.NotAnEncoder("$name is empty; build or copy it again")
            val direct = if (model.isDirect) {
                model.slice()
            } else {
                ByteBuffer.allocateDirect(model.remaining()).put(model.duplicate()).atStart()
            }
            return open(name, threads) { environment.createSession(direct, it) }
        }

        private fun open(
            name: String,
            threads: Int,
            create: (OrtSession.SessionOptions) -> OrtSession,
        ): QueryEncoder {
            require(threads >= 1) { "threads is $threads; a whole number from 1 is needed" }
            val session = try {
                OrtSession.SessionOptions().use { options ->
                    options.setIntraOpNumThreads(threads)
                    options.setInterOpNumThreads(1)
                    options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
                    create(options)
                }
            } catch (error: OrtException) {
                throw EdgeleafException.NotAnEncoder(
                    "$name: onnxruntime ${environment.version} cannot open it; it is damaged or no ONNX model: " +
                        reasonOf(error),
                    error,
                )
            }
            try {
                return of(session, name)
            } catch (error: Throwable) {
                session.close()
                throw error
            }
        }

        private fun of(session: OrtSession, name: String): QueryEncoder {
            val metadata = session.metadata.customMetadata
            val inputs = session.inputInfo.values.map { it.name to (it.info as? TensorInfo)?.type }
            val outputs = session.outputInfo.values.map { it.name to (it.info as? TensorInfo)?.type }
            val space = metadata["edgeleaf.space"]
            val takesStrings = inputs == listOf(STRING_INPUT to OnnxJavaType.STRING)
            val isFused = (takesStrings || inputs == listOf(INPUT to OnnxJavaType.UINT8)) && space != null &&
                outputs == listOf(OUTPUT to OnnxJavaType.FLOAT)
            if (!isFused) {
                val found = inputs.joinToString { (input, type) -> "$input: ${type ?: "no tensor"}" }
                throw EdgeleafException.NotAnEncoder(
                    "$name is not a fused query encoder: it takes $found; one that takes utf8: UINT8 is needed, as " +
                        "edgeleaf ship BUNDLE --input utf8 -o FOLDER writes it",
                )
            }
            val schema = metadata["edgeleaf.schema_version"]
            if (schema != SCHEMA_VERSION) {
                throw EdgeleafException.UnsupportedSchema(
                    "$name: schema version $schema, this edgeleaf reads $SCHEMA_VERSION; " +
                        "use the edgeleaf that wrote it or build it again",
                )
            }
            if (takesStrings) {
                throw EdgeleafException.NotAnEncoder(
                    "$name takes strings, which Java does not hand over exactly; make a copy of its bundle that " +
                        "takes bytes: edgeleaf ship BUNDLE --input utf8 -o FOLDER",
                )
            }
            return QueryEncoder(
                session,
                try {
                    VectorSpace.read(parseJson(space))
                } catch (fault: JsonFault) {
                    throw EdgeleafException.NotAnEncoder(
                        "$name: its vector space cannot be read (${fault.message}); build or copy it again",
                    )
                },
                metadata["edgeleaf.max_length"]?.toIntOrNull() ?: throw EdgeleafException.NotAnEncoder(
                    "$name does not say how many tokens it reads; build or copy it again",
                ),
                LongTexts.read(metadata["edgeleaf.long_texts"]),
                name,
            )
        }
    }
}

/** `position(0)`. Android 8 has this only as a method of [Buffer], not of [ByteBuffer]. */
internal fun ByteBuffer.atStart(): ByteBuffer {
    val buffer: Buffer = this
    buffer.position(0)
    return this
}

private const val ENCODE_BATCH = 32

/** Greatest number of characters in a batch, filler included, unless one text alone exceeds it. */
private const val BATCH_CHARACTERS = 65_536

/** Greatest difference in characters within a batch: more filler costs more time than the batch saves. */
private const val PADDING = 16

/** Batches of places of texts of similar length, the shortest first, to save filler; as in Python. */
internal fun batches(lengths: IntArray): List<List<Int>> {
    val batches = ArrayList<List<Int>>()
    var batch = ArrayList<Int>()
    for (place in lengths.indices.sortedBy { lengths[it] }) {
        val length = lengths[place]
        val full = batch.size == ENCODE_BATCH || (batch.size + 1L) * length > BATCH_CHARACTERS
        if (batch.isNotEmpty() && (full || length - lengths[batch[0]] > PADDING)) {
            batches.add(batch)
            batch = ArrayList()
        }
        batch.add(place)
    }
    if (batch.isNotEmpty()) batches.add(batch)
    return batches
}
