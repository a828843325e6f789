package io.github.edgeleaf.demo

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.ProgressBar
import android.widget.TextView
import io.github.edgeleaf.Hit
import kotlin.math.roundToInt

/** Shows hits as cards: the term, its score as a number and a bar, the definition. */
class HitAdapter : BaseAdapter() {
    /** What is shown, the nearest first. */
    var hits: List<Hit> = emptyList()
        set(value) {
            field = value
            notifyDataSetChanged()
        }

    override fun getCount(): Int = hits.size
    override fun getItem(position: Int): Hit = hits[position]
    override fun getItemId(position: Int): Long = position.toLong()
    override fun areAllItemsEnabled(): Boolean = false
    override fun isEnabled(position: Int): Boolean = false

    override fun getView(position: Int, recycled: View?, parent: ViewGroup): View {
        val row = recycled ?: LayoutInflater.from(parent.context).inflate(R.layout.row, parent, false)
        val hit = hits[position]
        val definition = hit.text.removePrefix("${hit.id}: ")
        val score = row.resources.configuration.locales[0].let { "%.2f".format(it, hit.score) }
        row.findViewById<TextView>(R.id.title).text = hit.id
        row.findViewById<TextView>(R.id.score).text = score
        row.findViewById<TextView>(R.id.text).text = definition
        row.findViewById<ProgressBar>(R.id.bar).progress = (hit.score * FULL).roundToInt().coerceIn(0, FULL)
        row.contentDescription = row.resources.getString(R.string.row_description, hit.id, score, definition)
        return row
    }

    private companion object {
        const val FULL = 1000
    }
}
