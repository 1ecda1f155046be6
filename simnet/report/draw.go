package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// point is one of a line.
type point struct{ x, y float64 }

// series is one line, or one cloud, of a figure.
type series struct {
	name   string
	hue    int // of the palette
	dashed bool
	points []point
}

// axis says what one is like.
type axis struct {
	log      bool
	clock    bool    // it shows the time of the run, in seconds
	min, max float64 // NaN: as the data have it
	label    func(float64) string
}

// Size of a figure in points. They are narrow, so that their text can be read on a phone.
const (
	figureWidth  = 380
	figureHeight = 240
)

// hues is how many series can be told apart.
const hues = 6

// The colours of a figure stand for names of the page's style, which differ between light and dark.
var (
	ink   = color.NRGBA{1, 1, 1, 255}
	faint = color.NRGBA{1, 1, 2, 255}
	names = func() *strings.Replacer {
		pairs := []string{"#010101", "var(--ink)", "#010102", "var(--line)"}
		for i := range hues {
			pairs = append(pairs, fmt.Sprintf("#0200%02X", i), fmt.Sprintf("var(--s%d)", i))
		}
		return strings.NewReplacer(pairs...)
	}()
)

func hue(i int) color.Color { return color.NRGBA{2, 0, uint8(i % hues), 255} }

// drawn makes a figure of lines, or of clouds of points.
func drawn(all []series, x, y axis, cloud bool) (template.HTML, error) {
	p := plot.New()
	p.BackgroundColor = nil
	style(&p.X, x)
	style(&p.Y, y)
	grid := plotter.NewGrid()
	grid.Horizontal = draw.LineStyle{Color: faint, Width: vg.Points(0.6)}
	grid.Vertical = grid.Horizontal
	p.Add(grid)
	for _, s := range all {
		xys := make(plotter.XYs, len(s.points))
		for i, q := range s.points {
			xys[i].X, xys[i].Y = q.x, q.y
		}
		if cloud {
			c, err := plotter.NewScatter(xys)
			if err != nil {
				return "", err
			}
			c.GlyphStyle = draw.GlyphStyle{Color: hue(s.hue), Radius: vg.Points(2.8), Shape: draw.CircleGlyph{}}
			p.Add(c)
			continue
		}
		l, err := plotter.NewLine(xys)
		if err != nil {
			return "", err
		}
		l.LineStyle = draw.LineStyle{Color: hue(s.hue), Width: vg.Points(1.8)}
		if s.dashed {
			l.LineStyle.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		p.Add(l)
	}
	bound(&p.X, x)
	bound(&p.Y, y)
	c := vgsvg.New(figureWidth, figureHeight)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	return inline(b.String()), nil
}

// inline makes a document a part of a page.
func inline(svg string) template.HTML {
	_, svg, _ = strings.Cut(svg, "<svg ")
	_, svg, _ = strings.Cut(svg, "viewBox")
	return template.HTML(`<svg class="plot" role="img" viewBox` + names.Replace(svg))
}

func style(a *plot.Axis, like axis) {
	sans := font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 12)
	a.LineStyle = draw.LineStyle{Color: ink, Width: vg.Points(0.8)}
	a.Tick.LineStyle, a.Tick.Length = a.LineStyle, 4
	a.Tick.Label.Font, a.Tick.Label.Color = sans, ink
	a.Padding = 2
	a.Tick.Marker = ticks(like)
	if like.log {
		a.Scale = plot.LogScale{}
	}
}

// bound sets the ends of an axis, and sees that there is something between them.
func bound(a *plot.Axis, like axis) {
	if !math.IsNaN(like.min) {
		a.Min = like.min
	}
	if !math.IsNaN(like.max) {
		a.Max = like.max
	}
	switch {
	case like.log && !(a.Max > a.Min*1.5):
		a.Min, a.Max = a.Min/1.5, a.Max*1.5
	case !like.log && !(a.Max > a.Min):
		a.Max = a.Min + 1
	}
}

// ticks are at 1, 2 and 5 times powers of ten, as many as can be read.
type ticks axis

const (
	mostTicks = 7
	mostMinor = 40
)

// Ticks implements plot.Ticker.
func (t ticks) Ticks(low, high float64) []plot.Tick {
	if t.log {
		return t.logTicks(low, high)
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/mostTicks)))
	steps := []float64{step, 2 * step, 5 * step, 10 * step}
	label := t.label
	if t.clock {
		steps = append(slices.DeleteFunc(steps, func(s float64) bool { return s > 20 }), 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 864000, 8640000)
	}
	for _, step = range steps {
		if (high-low)/step <= mostTicks {
			break
		}
	}
	if t.clock {
		label = clock(step)
	}
	var list []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+step*1e-9; i++ {
		v := i*step + 0 // not -0
		list = append(list, plot.Tick{Value: v, Label: label(v)})
	}
	return list
}

// clock writes times in a unit in which steps of a length can be read.
func clock(step float64) func(float64) string {
	unit, name := 1.0, " s"
	switch {
	case step >= 86400:
		unit, name = 86400, " d"
	case step >= 3600:
		unit, name = 3600, " h"
	case step >= 60:
		unit, name = 60, " min"
	}
	return func(v float64) string { return number(v/unit) + name }
}

func (t ticks) logTicks(low, high float64) []plot.Tick {
	for _, digits := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		var list []plot.Tick
		for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
			for _, d := range digits {
				if v := d * math.Pow(10, e); v >= low*0.999 && v <= high*1.001 {
					list = append(list, plot.Tick{Value: v, Label: t.label(v)})
				}
			}
		}
		if len(list) <= mostTicks || len(digits) == 1 && len(list) <= mostMinor {
			return list
		}
	}
	return nil
}

// number writes a number with few digits, and thousands set apart.
func number(v float64) string {
	if a := math.Abs(v); a >= 1e15 || a > 0 && a < 1e-6 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := 0
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
	case a >= 10:
		digits = 1
	default:
		digits = 2 - int(math.Floor(math.Log10(a)))
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	whole, rest, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "\u202f" + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

// seconds writes a duration.
func seconds(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 0.0009995:
		return number(v*1e6) + " µs"
	case a < 0.9995:
		return number(v*1e3) + " ms"
	case a < 120:
		return number(v) + " s"
	case a < 7200:
		return number(v/60) + " min"
	default:
		return number(v/3600) + " h"
	}
}

// bytesOf writes a size.
func bytesOf(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; v >= 1000 && i < len(units)-1; i++ {
		v /= 1024
	}
	return number(v) + " " + units[i]
}

func percent(v float64) string { return number(100*v) + "\u202f%" }

// quantile is one of sorted values.
func quantile(sorted []float64, p float64) float64 {
	return stat.Quantile(p, stat.Empirical, sorted, nil)
}

// mostPoints is how many of a distribution are drawn.
const mostPoints = 250

// distribution is how much of values is not above each, as points; values are sorted by it.
func distribution(values []float64) []point {
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return nil
	}
	points := []point{{values[0], 0}}
	if n > mostPoints {
		for i := range mostPoints {
			at := i * (n - 1) / (mostPoints - 1)
			points = append(points, point{values[at], float64(at+1) / float64(n)})
		}
		return points
	}
	for i, v := range values { // steps
		points = append(points, point{v, float64(i) / float64(n)}, point{v, float64(i+1) / float64(n)})
	}
	return points
}

// thin leaves as many points of a line as can be told apart, each the highest of those about it.
func thin(points []point) []point {
	for len(points) > 2*mostPoints {
		half := points[:0]
		for i := 0; i < len(points); i += 2 {
			p := points[i]
			if i+1 < len(points) && points[i+1].y > p.y {
				p.y = points[i+1].y
			}
			half = append(half, p)
		}
		points = half
	}
	return points
}
