package io.github.edgeleaf.android

import android.content.res.AssetManager
import android.system.Os
import io.github.edgeleaf.EdgeleafException
import io.github.edgeleaf.QueryEncoder
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * Opens an encoder from an asset. The asset is mapped into memory from the APK, without a copy of its 24 MB.
 *
 * Gradle must leave it uncompressed: `android { androidResources { noCompress += "onnx" } }`.
 *
 * This takes some tenths of a second; do not call it on the main thread. [AssetSearch] does all this for a whole app.
 *
 * @param assets `context.assets`, of any context of the app.
 * @param name the asset's name: a `query_encoder.onnx` from `edgeleaf ship BUNDLE --input utf8`.
 * @param threads processor threads that one call may use, from 1.
 * @throws EdgeleafException.NotAnEncoder there is no such asset, it is compressed, or it does not take bytes.
 * @throws EdgeleafException.UnsupportedSchema it was written by an edgeleaf with another schema version.
 */
@JvmOverloads
public fun QueryEncoder.Companion.fromAsset(
    assets: AssetManager,
    name: String = "query_encoder.onnx",
    threads: Int = 1,
): QueryEncoder {
    // onnxruntime reports to its maker from 1.29 on, unless this is set before its library is loaded.
    Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)
    return open(mapped(assets, name), "the asset $name", threads)
}

/** Maps an uncompressed asset for reading. */
private fun mapped(assets: AssetManager, name: String): ByteBuffer {
    try {
        assets.openFd(name).use { file ->
            FileInputStream(file.fileDescriptor).use { stream ->
                return stream.channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.length)
            }
        }
    } catch (error: IOException) {
        throw EdgeleafException.NotAnEncoder(
            if (error is FileNotFoundException && exists(assets, name)) {
                "the asset $name is compressed, so it cannot be mapped; leave it as it is with Gradle's " +
                    "android { androidResources { noCompress += \"onnx\" } }"
            } else {
                "there is no asset $name; put the query_encoder.onnx of edgeleaf ship BUNDLE --input utf8 into " +
                    "src/main/assets"
            },
            error,
        )
    }
}

private fun exists(assets: AssetManager, name: String): Boolean = try {
    assets.open(name).close()
    true
} catch (_: IOException) {
    false
}
