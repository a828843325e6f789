package io.github.edgeleaf

import java.security.MessageDigest

/**
 * The space that a vector lives in: a large model, the teacher, and all that decides its vectors. Vectors of two spaces
 * must never be compared, see [sameAs].
 *
 * It is read from an encoder ([QueryEncoder.space]) or an index ([DocumentIndex.space]). Immutable, so safe to share
 * between threads.
 *
 * @property teacher the name under which the teacher was loaded, such as `sentence-transformers/all-mpnet-base-v2`.
 * @property revision the hub revision, if one was pinned.
 * @property weightsSha256 hash of the teacher's weights.
 * @property pooling `mean`, `cls`, `lasttoken`, ...
 * @property normalized whether vectors have unit L2 norm.
 * @property queryPrompt the text that the encoder puts before a query.
 * @property documentPrompt the text that was put before a document.
 * @property dim how many numbers a vector has.
 * @property tokenizerSha256 hash of the teacher's tokenizer; null if it is not known, as in older files.
 * @property attention `bidirectional` or `causal`; null if it is not known.
 * @property queryContext in-context examples that the teacher reads before the prompt of a query; null for none.
 * @property querySuffix the text that the teacher reads after a query; null for none.
 * @property documentSuffix the text that the teacher reads after a document; null for none.
 * @property bosToken the teacher's first token, if its kind puts it there; null otherwise.
 * @property eosToken the teacher's last token, if its kind puts it there; null otherwise.
 */
public class VectorSpace internal constructor(
    public val teacher: String,
    public val revision: String?,
    public val weightsSha256: String,
    public val pooling: String,
    public val normalized: Boolean,
    public val queryPrompt: String,
    public val documentPrompt: String,
    public val dim: Int,
    public val tokenizerSha256: String?,
    public val attention: String?,
    public val queryContext: String? = null,
    public val querySuffix: String? = null,
    public val documentSuffix: String? = null,
    public val bosToken: String? = null,
    public val eosToken: String? = null,
) {
    /** What identifies the space, in the order of Python's sorted keys. Older files lack some of it. */
    private val identity: Map<String, Any> = listOfNotNull(
        attention?.let { "attention" to it },
        bosToken?.let { "bos_token" to it },
        "dim" to dim,
        "document_prompt" to documentPrompt,
        documentSuffix?.let { "document_suffix" to it },
        eosToken?.let { "eos_token" to it },
        "normalized" to normalized,
        "pooling" to pooling,
        queryContext?.let { "query_context" to it },
        "query_prompt" to queryPrompt,
        querySuffix?.let { "query_suffix" to it },
        tokenizerSha256?.let { "tokenizer_sha256" to it },
        "weights_sha256" to weightsSha256,
    ).toMap()

    /** A short name that two equal spaces share, the same as in Python: `all-mpnet-base-v2/768/5f0c2a9b41d7`. */
    public val id: String = "${teacher.substringAfterLast('/')}/$dim/${digest()}"

    /**
     * Whether vectors of both spaces may be compared: whether everything that both of them record is equal. The name of
     * the teacher does not count; neither does a tokenizer or a direction that one of them lacks because an older
     * edgeleaf wrote it.
     */
    public fun sameAs(other: VectorSpace): Boolean =
        AROUND.all { identity[it] == other.identity[it] } &&
            identity.all { (key, value) -> key !in other.identity || other.identity[key] == value }

    override fun equals(other: Any?): Boolean =
        other is VectorSpace && teacher == other.teacher && revision == other.revision && identity == other.identity

    override fun hashCode(): Int = identity.hashCode()

    /** The [id]. */
    override fun toString(): String = id

    private fun digest(): String {
        val json = identity.entries.joinToString(", ", "{", "}") { (key, value) ->
            "\"$key\": " + if (value is String) asciiJson(value) else value.toString()
        }
        return hexadecimal(MessageDigest.getInstance("SHA-256").digest(json.toByteArray())).take(DIGEST_DIGITS)
    }

    internal companion object {
        private const val DIGEST_DIGITS = 12
        private const val MOST_DIM = 65_536
        private val NEEDED = listOf(
            "teacher", "revision", "weights_sha256", "pooling", "normalized", "query_prompt", "document_prompt", "dim",
        )
        private val AROUND = listOf("query_context", "query_suffix", "document_suffix", "bos_token", "eos_token")
        private val LATER = listOf("tokenizer_sha256", "attention") + AROUND

        /**
         * Makes a space of parsed JSON.
         *
         * @param where what comes before a key in messages, such as `space.`.
         * @throws JsonFault a key that is missing or unknown, or a value that makes no sense; it names the key.
         */
        fun read(value: Any?, where: String = ""): VectorSpace {
            if (value !is Map<*, *>) throw JsonFault("${where.removeSuffix(".").ifEmpty { "it" }} is not a table")
            value.keys.firstOrNull { it !in NEEDED && it !in LATER }?.let {
                throw JsonFault("unknown key $where${it.toString().take(60)}")
            }
            NEEDED.firstOrNull { it !in value }?.let { throw JsonFault("$where$it is missing") }

            fun fault(key: String, needed: String) = JsonFault("$where$key is ${shown(value[key])}; $needed is needed")
            fun textOrNull(key: String) = value[key]?.let { it as? String ?: throw fault(key, "a text") }
            fun text(key: String) = textOrNull(key) ?: throw fault(key, "a text")
            fun name(key: String) = text(key).also {
                if (it.isEmpty() || it.any { character -> character < ' ' }) throw fault(key, "a name")
            }
            val dim = value["dim"]
            if (dim !is Long || dim !in 1..MOST_DIM) throw fault("dim", "a whole number, 1 to $MOST_DIM,")
            return VectorSpace(
                teacher = name("teacher"),
                revision = textOrNull("revision"),
                weightsSha256 = text("weights_sha256"),
                pooling = name("pooling"),
                normalized = value["normalized"] as? Boolean ?: throw fault("normalized", "true or false"),
                queryPrompt = text("query_prompt"),
                documentPrompt = text("document_prompt"),
                dim = dim.toInt(),
                tokenizerSha256 = textOrNull("tokenizer_sha256"),
                attention = textOrNull("attention").also {
                    if (it != null && it != "bidirectional" && it != "causal") {
                        throw fault("attention", "bidirectional or causal")
                    }
                },
                queryContext = textOrNull("query_context"),
                querySuffix = textOrNull("query_suffix"),
                documentSuffix = textOrNull("document_suffix"),
                bosToken = textOrNull("bos_token"),
                eosToken = textOrNull("eos_token"),
            )
        }
    }
}

/** Bytes as lower-case hexadecimal digits. */
internal fun hexadecimal(bytes: ByteArray): String =
    bytes.joinToString("") { (it.toInt() and 0xff).toString(16).padStart(2, '0') }
