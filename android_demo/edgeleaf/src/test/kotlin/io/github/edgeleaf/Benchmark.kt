package io.github.edgeleaf

import java.io.File
import java.lang.management.ManagementFactory

/**
 * Measures one process, for `android_demo/tools/benchmark.py`: the encoder alone, or from a text to ten hits.
 *
 * Arguments: the encoder's file, a file with a text a line, how many calls, and the folder of an index or nothing.
 * Prints one line of JSON; times are in milliseconds, memory in megabytes.
 */
internal object Benchmark {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val texts = File(arguments[1]).readLines()
        val calls = arguments[2].toInt()
        val encoder = QueryEncoder.open(File(arguments[0]))
        val opening = System.nanoTime()
        val index = arguments.getOrNull(3)?.let { DocumentIndex.open(File(it), encoder.space) }
        val openMs = (System.nanoTime() - opening) / NANOS
        fun call(text: String) {
            val vector = encoder.encode(text)
            index?.search(vector)
        }
        call(texts[0])
        val firstMs = System.currentTimeMillis() - ManagementFactory.getRuntimeMXBean().startTime
        repeat(calls / 5) { call(texts[it % texts.size]) }
        val times = DoubleArray(calls) {
            val start = System.nanoTime()
            call(texts[it % texts.size])
            (System.nanoTime() - start) / NANOS
        }
        times.sort()
        val peak = File("/proc/self/status").readLines().first { it.startsWith("VmHWM") }.filter(Char::isDigit).toLong()
        println(
            """{"p50_ms": ${times[calls / 2]}, "p95_ms": ${times[calls * 95 / 100]}, "first_ms": $firstMs, """ +
                """"open_index_ms": $openMs, "peak_mb": ${peak / 1024.0}}""",
        )
    }

    private const val NANOS = 1e6
}
