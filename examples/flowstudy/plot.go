package main

import (
	"image/color"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"cepa/simnet/flowstudy"
)

// marks are how rules look.
var marks = []struct {
	color color.NRGBA
	shape draw.GlyphDrawer
}{
	{color.NRGBA{0x1f, 0x4e, 0xa8, 255}, draw.CircleGlyph{}},
	{color.NRGBA{0xd9, 0x5f, 0x02, 255}, draw.PyramidGlyph{}},
	{color.NRGBA{0x1b, 0x9e, 0x77, 255}, draw.BoxGlyph{}},
	{color.NRGBA{0xe7, 0x29, 0x8a, 255}, draw.CrossGlyph{}},
	{color.NRGBA{0x66, 0x66, 0x66, 255}, draw.PlusGlyph{}},
	{color.NRGBA{0xa6, 0x76, 0x1d, 255}, draw.RingGlyph{}},
}

// drawPlot sets the rate of each scenario and rule beside its delay, both the medians over seeds.
func drawPlot(results []*flowstudy.Result, rules []string, path string) error {
	p := plot.New()
	p.BackgroundColor = color.White
	p.X.Label.Text, p.Y.Label.Text = "rate, % of the bottleneck", "delay in queues, ms, median"
	p.X.Max = 100
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 0}
	p.Legend.Left, p.Legend.Top = true, true
	p.Add(plotter.NewGrid())
	for i, rule := range rules {
		points := medians(results, rule)
		if len(points) == 0 {
			continue
		}
		s, err := plotter.NewScatter(points)
		if err != nil {
			return err
		}
		m := marks[i%len(marks)]
		s.Color, s.Shape, s.Radius = m.color, m.shape, vg.Points(3.5)
		p.Add(s)
		p.Legend.Add(rule, s)
	}
	canvas := vgsvg.New(vg.Points(520), vg.Points(360))
	p.Draw(draw.New(canvas))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// medians are the points of a rule, one a scenario that has a rate and a delay.
func medians(results []*flowstudy.Result, rule string) (points plotter.XYs) {
	for _, s := range flowstudy.Scenarios() {
		var rates, delays []float64
		for _, r := range results {
			if r.Scenario != s.Name || r.Rule != rule {
				continue
			}
			for _, v := range r.Values {
				switch strings.TrimPrefix(v.Name, "cold: ") {
				case "rate", "rate of 2nd half", "downloads":
					rates = append(rates, v.X)
				case "delay p50":
					delays = append(delays, v.X)
				}
			}
		}
		if len(rates) == 0 || len(delays) == 0 {
			continue
		}
		slices.Sort(rates)
		slices.Sort(delays)
		x, y := rates[len(rates)/2], delays[len(delays)/2]
		if !math.IsNaN(x) && !math.IsNaN(y) && y > 0 {
			points = append(points, plotter.XY{X: x, Y: y})
		}
	}
	return points
}
