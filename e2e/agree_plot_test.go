//go:build linux

package e2e

import (
	"image/color"
	"os"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// drawAgreement lays the distributions of reality and of the simulator over each other, one picture for each
// metric.
func drawAgreement(path string, real, simulated seen) error {
	const columns = 2
	var grid [][]*plot.Plot
	for i, m := range metrics {
		p := plot.New()
		p.Title.Text, p.X.Label.Text = m.name, "seconds"
		p.Title.Padding = vg.Points(6)
		p.BackgroundColor = color.White
		p.X.Min, p.Y.Min, p.Y.Max = 0, 0, 1
		p.Y.Tick.Marker = plot.ConstantTicks([]plot.Tick{{Value: 0, Label: "0"}, {Value: .25}, {Value: .5, Label: "½"}, {Value: .75}, {Value: .95, Label: "95 %"}})
		p.Add(plotter.NewGrid())
		for _, x := range []struct {
			name  string
			times []time.Duration
			color color.NRGBA
			width vg.Length
		}{
			{"real processes", m.of(real), color.NRGBA{0xd9, 0x5f, 0x02, 255}, vg.Points(2.5)},
			{"simulator", m.of(simulated), color.NRGBA{0x1f, 0x4e, 0xa8, 255}, vg.Points(1.2)},
		} {
			line, err := plotter.NewLine(steps(x.times))
			if err != nil {
				return err
			}
			line.Color, line.Width = x.color, x.width
			p.Add(line)
			if i == 0 {
				p.Legend.Add(x.name, line)
			}
		}
		if i%columns == 0 {
			grid = append(grid, make([]*plot.Plot, columns))
		}
		grid[i/columns][i%columns] = p
	}
	canvas := vgsvg.New(vg.Points(720), vg.Points(float64(230*len(grid))))
	tiles := draw.Tiles{Rows: len(grid), Cols: columns, PadX: vg.Points(24), PadY: vg.Points(18), PadTop: vg.Points(6), PadRight: vg.Points(12)}
	whole := draw.New(canvas)
	for r, row := range plot.Align(grid, tiles, whole) {
		for c, place := range row {
			if grid[r][c] != nil {
				grid[r][c].Draw(place)
			}
		}
	}
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

// steps is the share of times that are at most so long.
func steps(times []time.Duration) (points plotter.XYs) {
	sorted := slices.Sorted(slices.Values(times))
	for i, d := range sorted {
		points = append(points, plotter.XY{X: d.Seconds(), Y: float64(i+1) / float64(len(sorted))})
	}
	return points
}
