package io.github.edgeleaf

/** The rows with the highest scores, highest first; of equal scores, the lower row first. */
internal class Found(val rows: IntArray, val scores: FloatArray)

/** Thrown if a row's score is not finite, although the query is. */
internal class NotFiniteScore(val row: Int, val rowIsFinite: Boolean) : Exception()

/**
 * Scores all rows exactly and returns the first `k`.
 *
 * A product of a float16 and a float32 number is exact in a double, so a score is off by some 1e-16 before it is
 * rounded to float32, the type in which scores are ranked, here and in Python.
 *
 * @param matrix float16 [rows, query.size].
 * @throws NotFiniteScore a row holds numbers that are not finite, or the query is far too large.
 */
internal fun topK(matrix: Mapped, rows: Int, query: FloatArray, k: Int): Found {
    val width = query.size
    val wide = DoubleArray(width) { query[it].toDouble() }
    val best = Best(minOf(k, rows))
    val rowsOfBlock = maxOf(1, BLOCK_NUMBERS / width)
    val block = ShortArray(rowsOfBlock * width)
    for (start in 0 until rows step rowsOfBlock) {
        val count = minOf(rowsOfBlock, rows - start)
        matrix.readHalves(2L * start * width, block, count * width)
        for (row in 0 until count) {
            val score = product(wide, block, row * width).toFloat()
            if (!score.isFinite()) throw NotFiniteScore(start + row, isFinite(block, row * width, width))
            best.offer(score, start + row)
        }
    }
    return best.sorted()
}

/** The inner product of a query and the float16 numbers from `from` on. Four sums, so that none waits for another. */
private fun product(query: DoubleArray, halves: ShortArray, from: Int): Double {
    val floats = FLOATS
    var a = 0.0
    var b = 0.0
    var c = 0.0
    var d = 0.0
    val even = query.size and 3.inv()
    var i = 0
    while (i < even) {
        a += query[i] * floats[halves[from + i].toInt() and 0xffff]
        b += query[i + 1] * floats[halves[from + i + 1].toInt() and 0xffff]
        c += query[i + 2] * floats[halves[from + i + 2].toInt() and 0xffff]
        d += query[i + 3] * floats[halves[from + i + 3].toInt() and 0xffff]
        i += 4
    }
    while (i < query.size) {
        a += query[i] * floats[halves[from + i].toInt() and 0xffff]
        i++
    }
    return (a + b) + (c + d)
}

/** Every float16 number as a float, by its bits: 256 kB, of which unit vectors use a fifth. */
private val FLOATS = FloatArray(1 shl 16, ::floatOfHalf)

internal fun floatOfHalf(half: Int): Float {
    val sign = half and 0x8000 shl 16
    val exponent = half shr 10 and 0x1f
    val fraction = half and 0x3ff
    return when (exponent) {
        0 -> Float.fromBits(sign or (fraction * SMALLEST).toRawBits())
        0x1f -> Float.fromBits(sign or 0x7f800000 or (fraction shl 13))
        else -> Float.fromBits(sign or (exponent + 127 - 15 shl 23) or (fraction shl 13))
    }
}

/** 2 to the power of -24, the smallest float16 number above 0. */
private const val SMALLEST = 1f / (1 shl 24)

/** Numbers that are copied from the map at once; they stay in the processor's nearest cache. */
private const val BLOCK_NUMBERS = 1 shl 14

/** A heap of the best rows so far, the worst of them on top. */
private class Best(private val capacity: Int) {
    private val rows = IntArray(capacity)
    private val scores = FloatArray(capacity)
    private var size = 0

    /** Takes a row; rows come in ascending order, so one that equals the worst is no better. */
    fun offer(score: Float, row: Int) {
        if (size < capacity) {
            up(size++, score, row)
        } else if (size > 0 && score > scores[0]) {
            down(score, row)
        }
    }

    /** Empties the heap. */
    fun sorted(): Found {
        val found = Found(IntArray(size), FloatArray(size))
        while (size > 0) {
            found.rows[size - 1] = rows[0]
            found.scores[size - 1] = scores[0]
            size--
            if (size > 0) down(scores[size], rows[size])
        }
        return found
    }

    private fun up(from: Int, score: Float, row: Int) {
        var place = from
        while (place > 0) {
            val above = (place - 1) / 2
            if (!isWorse(score, row, above)) break
            put(place, scores[above], rows[above])
            place = above
        }
        put(place, score, row)
    }

    /** Replaces the worst. */
    private fun down(score: Float, row: Int) {
        var place = 0
        while (true) {
            var below = 2 * place + 1
            if (below >= size) break
            if (below + 1 < size && isWorse(scores[below + 1], rows[below + 1], below)) below++
            if (isWorse(score, row, below)) break
            put(place, scores[below], rows[below])
            place = below
        }
        put(place, score, row)
    }

    private fun isWorse(score: Float, row: Int, place: Int): Boolean =
        score < scores[place] || (score == scores[place] && row > rows[place])

    private fun put(place: Int, score: Float, row: Int) {
        scores[place] = score
        rows[place] = row
    }
}
