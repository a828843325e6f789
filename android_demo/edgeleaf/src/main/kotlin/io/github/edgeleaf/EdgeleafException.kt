package io.github.edgeleaf

/**
 * What can go wrong, one class for each fault. The message is one sentence for people: what came, what was needed, and
 * what to do. It names the file at fault.
 *
 * An argument that only a mistake in the program can give, such as `k = 0`, is an [IllegalArgumentException] instead. A
 * search that a later one overtook throws [SearchOvertaken].
 */
public sealed class EdgeleafException(message: String, cause: Throwable? = null) : RuntimeException(message, cause) {

    /** The file is no fused query encoder, is damaged, or takes strings instead of UTF-8 bytes. */
    public class NotAnEncoder(message: String, cause: Throwable? = null) : EdgeleafException(message, cause)

    /** There is no index in the folder. */
    public class NotAnIndex(message: String, cause: Throwable? = null) : EdgeleafException(message, cause)

    /** A file of the index is missing, cut short, or holds something other than it should. */
    public class DamagedIndex(message: String, cause: Throwable? = null) : EdgeleafException(message, cause)

    /** Queries of one vector space cannot search documents of another. */
    public class WrongSpace(message: String) : EdgeleafException(message)

    /** The encoder or the index was written by an edgeleaf with another schema version. */
    public class UnsupportedSchema(message: String) : EdgeleafException(message)

    /** A text holds half a surrogate pair, or is null. */
    public class InvalidText(message: String) : EdgeleafException(message)

    /** A query vector has another width than the index needs, or numbers that are not finite or far too large. */
    public class InvalidVector(message: String) : EdgeleafException(message)

    /** onnxruntime could not encode the texts, for instance for lack of memory. */
    public class EncodingFailed(message: String, cause: Throwable? = null) : EdgeleafException(message, cause)

    /** A new index was refused or could not be written; the old one is still installed. */
    public class InstallFailed(message: String, cause: Throwable? = null) : EdgeleafException(message, cause)

    /** The encoder or the index was closed before this call. */
    public class Closed(message: String) : EdgeleafException(message)
}

/** The first line of an error's message, to be quoted in one of ours. */
internal fun reasonOf(error: Throwable): String =
    error.message?.lineSequence()?.firstOrNull { it.isNotBlank() }?.trim()?.take(REASON_CHARACTERS)
        ?: error.javaClass.simpleName

private const val REASON_CHARACTERS = 300
